//! The library in the place of `libvoidstar`: a seed repeats what SDKs draw, and nothing else is noticed
//! of it.

mod common;

use common::{Played, command, words};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A template in a directory that is removed with it.
struct Template {
    dir: TempDir,
}

impl Template {
    fn new() -> Template {
        let template = Template {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(template.path()).unwrap();
        template
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("t")
    }

    fn script(&self, name: &str, script: &str) {
        let path = self.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Compiles one of the programs of these tests.
    fn compile(&self, name: &str, source: &str, flags: &str) {
        let mut compiler = Command::new("cc");
        compiler.arg("-o").arg(self.path().join(name));
        match source {
            "" => compiler.args(["-x", "c", "/dev/null"]),
            source => compiler.arg(
                Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("tests/voidstar")
                    .join(source),
            ),
        };
        let output = compiler
            .args(words(flags))
            .args(["-x", "none", "-ldl"])
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{compiler:?}: {output:?}");
    }

    fn play(&self, options: &str) -> Played {
        self.play_in(options, |_| {})
    }

    fn play_in(&self, options: &str, prepare: impl FnOnce(&mut Command)) -> Played {
        let dir = tempfile::tempdir().unwrap();
        let options = [
            words("--commands 4"),
            words(options),
            vec![self.path().display().to_string()],
        ];
        let mut command = command(&dir, &options.concat());
        prepare(&mut command);
        let output = command.output().unwrap();
        Played {
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            dir,
        }
    }
}

fn commands(rehearsal: &Value) -> Vec<&Value> {
    let timelines = rehearsal["timelines"].as_array().unwrap();
    let of = |timeline: &'_ Value| timeline["commands"].as_array().unwrap().len();
    assert!(timelines.iter().all(|timeline| of(timeline) > 0));
    timelines
        .iter()
        .flat_map(|timeline| timeline["commands"].as_array().unwrap())
        .collect()
}

/// What the commands printed, in the order of their starts.
fn printed(played: &Played) -> Vec<String> {
    assert_eq!(played.status, Some(0), "{}{}", played.stdout, played.stderr);
    let rehearsal = played.json();
    let commands = commands(&rehearsal);
    for command in &commands {
        assert_eq!(command["stderr"], "", "{command}");
    }
    let printed = commands.iter().map(|command| command["stdout"].as_str());
    printed.map(|text| text.unwrap().to_owned()).collect()
}

fn property<'a>(rehearsal: &'a Value, name: &str) -> &'a Value {
    let mut properties = rehearsal["properties"].as_array().unwrap().iter();
    let found = properties.find(|property| property["name"] == name);
    found.unwrap_or_else(|| panic!("{name} is none of {}", rehearsal["properties"]))
}

#[test]
fn a_seed_repeats_what_sdks_draw() {
    let template = Template::new();
    template.compile("helper_draws", "draws.c", "-O1");
    // Two processes one after the other, each of which forks a third and a fourth.
    let twice = "./helper_draws && exec ./helper_draws";
    let beside = format!("cd {} && {twice}", template.path().display());
    // Before an eventually_ command, those that still run would be killed.
    for name in [
        "first_a",
        "parallel_driver_a",
        "serial_driver_b",
        "finally_c",
    ] {
        template.script(name, &beside);
    }
    let play = |seed: &str| template.play(&format!("--timelines 1 --seed {seed}"));
    let played = play("41");
    let one = printed(&played);
    assert_eq!(one.len(), 6);
    assert_eq!(one, printed(&play("41")), "the same seed");
    let other = printed(&play("42"));

    // Six in each command, and no number comes twice.
    let all = [one, other].concat();
    let numbers: Vec<&str> = all
        .iter()
        .flat_map(|text| text.split_whitespace())
        .collect();
    assert_eq!(numbers.len(), 6 * all.len(), "{numbers:?}");
    assert!(numbers.iter().all(|number| number.parse::<u64>().is_ok()));
    assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len());

    // The lines that an SDK gives to the library are read.
    let rehearsal = played.json();
    assert_eq!(
        property(&rehearsal, "sometimes: it draws")["status"],
        "passed"
    );
}

#[test]
fn a_command_of_a_replay_draws_the_same_again() {
    let template = Template::new();
    template.compile("parallel_driver_a", "draws.c", "-O1");
    let whole = printed(&template.play("--timelines 1 --seed 3"));
    let replayed = printed(&template.play("--timelines 1 --seed 3 --events 2"));
    assert_eq!(replayed, [whole[2].clone()]);
}

#[test]
fn a_harness_draws_the_same_again() {
    let template = Template::new();
    template.script("parallel_driver_a", "exit 0");
    template.compile("helper_draws", "draws.c", "-O1");
    let harness = format!(
        "{}/helper_draws; echo '{{\"antithesis_setup\":{{\"status\":\"complete\"}}}}' \
         >> $ANTITHESIS_OUTPUT_DIR/sdk.jsonl; exec sleep 1000",
        template.path().display()
    );
    let log = |seed: &str| {
        let dir = tempfile::tempdir().unwrap();
        let mut arguments = words("--timelines 1 --commands 1 --seed");
        arguments.extend([seed.to_owned(), template.path().display().to_string()]);
        arguments.extend(["--", "sh", "-c", &harness].map(str::to_owned));
        let output = command(&dir, &arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        fs::read_to_string(dir.path().join("out/timelines/0/harness-0.log")).unwrap()
    };
    let drawn = log("1");
    assert_eq!(drawn.split_whitespace().count(), 3, "{drawn}");
    assert_eq!(drawn, log("1"));
    assert_ne!(drawn, log("2"));
}

#[test]
fn programs_of_any_kind_run_as_without_it() {
    let template = Template::new();
    let here = template.path().display().to_string();
    template.compile("parallel_driver_static", "draws.c", "-O1 -static -w");
    template.compile("parallel_driver_asan", "draws.c", "-O1 -fsanitize=address");
    template.compile("helper_asan", "draws.c", "-fsanitize=address");
    template.script(
        "parallel_driver_asan_with_options",
        &format!("ASAN_OPTIONS=detect_leaks=1 exec {here}/helper_asan"),
    );
    template.compile(
        "parallel_driver_threads",
        "draws.c",
        "-O1 -fsanitize=thread",
    );
    fs::create_dir(template.path().join("helper_lib")).unwrap();
    template.compile("helper_lib/libplugin.so", "", "-shared -fPIC");
    let runpath = format!("-O1 -Wl,--enable-new-dtags,-rpath,{here}/helper_lib");
    template.compile("parallel_driver_runpath", "loads_by_runpath.c", &runpath);
    printed(&template.play("--timelines 5 --seed 0"));
}

#[test]
fn what_the_user_preloads_stays_in_front() {
    let template = Template::new();
    template.compile("helper_own.so", "", "-shared -fPIC");
    template.script("parallel_driver_a", "echo \"$LD_PRELOAD $ASAN_OPTIONS\"");
    let own = template.path().join("helper_own.so");
    let played = template.play_in("--timelines 1", |command| {
        command.env("LD_PRELOAD", &own).env("ASAN_OPTIONS", "a=b");
    });
    for text in printed(&played) {
        let start = format!("{}:/", own.display());
        assert!(text.starts_with(&start), "{text}");
        assert!(text.contains("/libvoidstar.so a=b:"), "{text}");
    }
}

#[test]
fn it_can_be_left_out() {
    let template = Template::new();
    template.compile("parallel_driver_a", "draws.c", "-O1");
    template.script(
        "parallel_driver_b",
        "test -z \"$LD_PRELOAD$ASAN_OPTIONS\" && echo no libvoidstar",
    );
    for text in printed(&template.play("--timelines 2 --seed 0 --no-voidstar")) {
        assert_eq!(text, "no libvoidstar\n");
    }
}

#[test]
fn where_it_cannot_be_the_rehearsal_says_so_and_goes_on() {
    let template = Template::new();
    template.compile("parallel_driver_a", "draws.c", "-O1");
    let place = tempfile::tempdir().unwrap();
    let spaced = place.path().join("a place");
    fs::create_dir(&spaced).unwrap();
    let output = Command::new(common::PROGRAM)
        .args(["rehearse", "--timelines", "1", "--output"])
        .arg(spaced.join("out"))
        .arg(template.path())
        .env("TMPDIR", &spaced)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let lines: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("randomness"))
        .collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(lines[0].contains("a place has a character"), "{said}");
    assert!(lines[0].contains("set TMPDIR"), "{said}");
    let left = fs::read_dir(&spaced).unwrap().count();
    assert_eq!(left, 1, "the results alone");
}
