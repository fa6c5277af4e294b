//! `init`: what it makes runs, keeps the rules of Antithesis, and replaces nothing.

#[path = "command/mod.rs"]
mod clients;

use clients::{Place, Running, installed, program, until};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use yaml_rust2::{Yaml, YamlLoader};

const HARNESSES: [&str; 5] = ["python", "jepsen", "java", "c", "command"];

/// Runs `init` with these further arguments, which must work, and returns the directory.
fn init(place: &Place, arguments: &str) -> PathBuf {
    let dir = place.path().join("made");
    let mut command = place.command("init");
    let ended = Running::start(command.arg(&dir).args(arguments.split_whitespace())).end();
    assert_eq!((ended.status, &*ended.stderr), (0, ""));
    assert!(ended.text().contains("README.md"), "{}", ended.text());
    dir
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The library that was built along with this test.
fn library() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let found = this.with_file_name("libjepsen_antithesis.so");
    assert!(found.is_file(), "{}", found.display());
    found
}

/// A directory in which the library has all names that compilers and loaders look for.
fn library_directory(place: &Place) -> PathBuf {
    let dir = place.path().join("lib");
    fs::create_dir(&dir).unwrap();
    for name in ["libjepsen_antithesis.so", "libjepsen_antithesis.so.1"] {
        std::os::unix::fs::symlink(library(), dir.join(name)).unwrap();
    }
    dir
}

/// A harness as `init` made it, in a process of its own.
struct Made {
    child: Child,
    log: PathBuf,
}

impl Made {
    /// Starts it, and waits until it has told Antithesis that the set-up is complete.
    fn start(place: &Place, dir: &Path, command: &mut Command) -> Made {
        let output = place.path().join("output");
        fs::create_dir(&output).unwrap();
        let log = place.path().join("log");
        let to_log = File::create(&log).unwrap();
        let path = std::env::var("PATH").unwrap();
        let child = command
            .current_dir(dir)
            .env("PATH", format!("{}:{path}", dir.display()))
            .env("JEPSEN_FIFO_DIR", place.control())
            .env("ANTITHESIS_OUTPUT_DIR", &output)
            .stdin(Stdio::null())
            .stdout(to_log.try_clone().unwrap())
            .stderr(to_log)
            .spawn()
            .unwrap();
        let mut made = Made { child, log };
        until("the set-up is complete", || {
            if let Some(status) = made.child.try_wait().unwrap() {
                panic!("the harness ended: {status}\n{}", made.said());
            }
            fs::read_to_string(output.join("sdk.jsonl"))
                .unwrap_or_default()
                .lines()
                .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
                .any(|line| line["antithesis_setup"]["status"] == "complete")
        });
        made
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Tells it to stop; it must have been there until now, and end well.
    fn stop(mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "{}", self.said());
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
        let mut status = None;
        until("the harness stops", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let status = status.unwrap();
        assert_eq!(
            (status.code(), status.signal()),
            (Some(0), None),
            "{}",
            self.said()
        );
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command of the template, as Antithesis does.
fn run(place: &Place, dir: &Path, name: &str) -> clients::Ended {
    let mut command = Command::new(dir.join("test/my-set").join(name));
    command.env("JEPSEN_FIFO_DIR", place.control());
    Running::start(&mut command).end()
}

/// Five operations and both checks, which must exit with `status`.
fn five_ops_and_a_check(place: &Place, dir: &Path, status: i32) {
    for _ in 0..5 {
        let op = run(place, dir, "parallel_driver_op");
        assert_eq!((op.status, &*op.stderr), (0, ""));
        assert!(op.text().contains("add"), "{}", op.text());
    }
    for check in ["eventually_check", "finally_check"] {
        let check = run(place, dir, check);
        assert_eq!(
            (check.status, &*check.stderr),
            (status, ""),
            "{}",
            check.text()
        );
        let verdict = if status == 0 { "valid" } else { "invalid" };
        let word = |word: &str| word == verdict;
        assert!(
            check.text().split(|c: char| !c.is_alphabetic()).any(word),
            "{}",
            check.text()
        );
    }
}

/// The harness finds a database that keeps all elements valid, and one that loses them, which is what
/// `broken` makes of the file, invalid.
fn works(
    harness: &str,
    file: &str,
    broken: (&str, &str),
    start: impl Fn(&Place, &Path) -> Command,
) {
    for status in [0, 1] {
        let place = Place::new();
        let dir = init(&place, &format!("--harness {harness} --name my-set"));
        if status == 1 {
            let text = fs::read_to_string(dir.join(file)).unwrap();
            let worse = text.replacen(broken.0, broken.1, 1);
            assert_ne!(text, worse);
            fs::write(dir.join(file), worse).unwrap();
        }
        let made = Made::start(&place, &dir, &mut start(&place, &dir));
        five_ops_and_a_check(&place, &dir, status);
        made.stop();
    }
}

/// Runs a compiler, which must have nothing to say.
fn compile(command: &mut Command) {
    let ended = Running::start(command).end();
    assert_eq!((ended.status, &*ended.stderr, ended.text()), (0, "", ""));
}

#[test]
fn the_harness_in_python_works() {
    if !installed("python3") {
        return eprintln!("skipped: there is no python3");
    }
    let broken = ("self.elements.add(element)", "pass");
    works("python", "harness.py", broken, |_, _| {
        let mut command = Command::new("python3");
        command
            .args(["harness.py", "antithesis", "--concurrency", "8"])
            .env("PYTHONPATH", repository().join("bindings/python/src"))
            .env("JEPSEN_ANTITHESIS_LIB", library());
        command
    });
}

#[test]
fn the_harness_in_c_works() {
    if !installed("cc") {
        return eprintln!("skipped: there is no C compiler");
    }
    let broken = ("set(&database, number, ACKNOWLEDGED);", "(void)number;");
    works("c", "harness.c", broken, |place, dir| {
        let lib = library_directory(place);
        compile(
            Command::new("cc")
                .current_dir(dir)
                .args(
                    "-std=c11 -O1 -Wall -Wextra -Wpedantic -pthread -o harness harness.c"
                        .split(' '),
                )
                .arg(format!("-I{}", repository().join("include").display()))
                .arg(format!("-L{}", lib.display()))
                .arg(format!("-Wl,-rpath,{}", lib.display()))
                .arg("-ljepsen_antithesis"),
        );
        Command::new(dir.join("harness"))
    });
}

/// JNA's jar in the local Maven repository, in the version that the binding asks for. Maven gets it
/// where it is not there yet.
fn jna() -> Result<PathBuf, String> {
    let pom = fs::read_to_string(repository().join("bindings/jvm/pom.xml")).unwrap();
    let (_, rest) = pom.split_once("<artifactId>jna</artifactId>").unwrap();
    let (_, rest) = rest.split_once("<version>").unwrap();
    let (version, _) = rest.split_once("</version>").unwrap();
    let home = PathBuf::from(std::env::var_os("HOME").ok_or("HOME is not set")?);
    let jar = home.join(format!(
        ".m2/repository/net/java/dev/jna/jna/{version}/jna-{version}.jar"
    ));
    if !jar.is_file() {
        let got = Command::new("mvn")
            .args(["-B", "-q", "-Dtransitive=false"])
            .arg("org.apache.maven.plugins:maven-dependency-plugin:3.8.1:get")
            .arg(format!("-Dartifact=net.java.dev.jna:jna:{version}"))
            .output()
            .map_err(|error| format!("JNA is not in ~/.m2, and mvn cannot be run: {error}"))?;
        if !got.status.success() || !jar.is_file() {
            let said = String::from_utf8_lossy(&got.stdout);
            return Err(format!("mvn does not get JNA to {}: {said}", jar.display()));
        }
    }
    Ok(jar)
}

#[test]
fn the_harness_in_java_works() {
    if !installed("javac") || !installed("java") {
        return eprintln!("skipped: there is no JDK");
    }
    let jna = match jna() {
        Ok(jar) => jar,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let broken = ("NUMBERS.add(number);", "");
    works(
        "java",
        "src/main/java/Harness.java",
        broken,
        |place, dir| {
            let binding = repository().join("bindings/jvm/src/main/java/org/jepsenantithesis");
            let sources = fs::read_dir(binding)
                .unwrap()
                .map(|file| file.unwrap().path());
            compile(
                Command::new("javac")
                    .args(["-nowarn", "-d", "classes", "-cp"])
                    .arg(&jna)
                    .args(sources)
                    .arg("src/main/java/Harness.java")
                    .current_dir(dir),
            );
            let mut command = Command::new("java");
            command
                .arg(format!(
                    "-Djna.library.path={}",
                    library_directory(place).display()
                ))
                .args(["-cp", &format!("classes:{}", jna.display()), "Harness"]);
            command
        },
    );
}

#[test]
fn commands_without_a_harness_work() {
    let broken = ("echo \"$1\" >>", ": >>");
    works(
        "command",
        "test/my-set/helper_database.sh",
        broken,
        |_, dir| Command::new(dir.join("start")),
    );
}

#[test]
fn a_command_without_a_harness_that_is_told_to_stop_is_no_finding() {
    let place = Place::new();
    let dir = init(&place, "--harness command --name my-set");
    let helper = dir.join("test/my-set/helper_database.sh");
    let text = fs::read_to_string(&helper).unwrap();
    // Opening a FIFO without a writer takes for ever, and starts no process that could be left behind.
    let never = "echo asked >&2; read -r line <\"$shared/never\"";
    let slow = text.replace("echo \"$1\" >>\"$shared/database\"", never);
    assert_ne!(text, slow);
    fs::write(&helper, slow).unwrap();
    let made = Made::start(&place, &dir, &mut Command::new(dir.join("start")));
    mkfifo(&place.control().join("never"), Mode::S_IRWXU).unwrap();
    let mut command = Command::new(dir.join("test/my-set/parallel_driver_op"));
    command
        .stdout(Stdio::null())
        .env("JEPSEN_FIFO_DIR", place.control())
        .stderr(File::create(place.path().join("asked")).unwrap());
    let mut op = command.spawn().unwrap();
    until("the database is asked", || {
        !fs::read(place.path().join("asked")).unwrap().is_empty()
    });
    kill(Pid::from_raw(op.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(op.wait().unwrap().code(), Some(0));
    made.stop();
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

fn start_init(place: &Place, dir: &Path, harness: &str) -> clients::Ended {
    let mut command = place.command("init --name my-set --harness");
    Running::start(command.arg(harness).arg(dir)).end()
}

#[test]
fn nothing_is_replaced_and_then_nothing_is_made() {
    for harness in HARNESSES {
        let place = Place::new();
        let all = files(&init(&place, &format!("--harness {harness} --name my-set")));
        for taken in all {
            let relative = taken.strip_prefix(place.path().join("made")).unwrap();
            let other = place.path().join("other").join(relative);
            fs::create_dir_all(other.parent().unwrap()).unwrap();
            // A link that leads nowhere is somebody's too.
            std::os::unix::fs::symlink("/nonexistent/elsewhere", &other).unwrap();
            let ended = start_init(&place, &place.path().join("other"), harness);
            ended.assert_told(73, other.to_str().unwrap());
            assert!(ended.stderr.contains("exists"), "{}", ended.stderr);
            assert_eq!(
                files(&place.path().join("other")),
                std::slice::from_ref(&other)
            );
            fs::remove_dir_all(place.path().join("other")).unwrap();
        }
    }
}

#[test]
fn what_cannot_be_made_leaves_nothing_and_says_why() {
    let place = Place::new();
    let dir = place.path().join("dir");
    fs::create_dir(&dir).unwrap();
    // In the way of a directory.
    fs::write(dir.join("config"), "").unwrap();
    let ended = start_init(&place, &dir, "python");
    ended.assert_told(73, "config");
    assert_eq!(files(&dir), [dir.join("config")]);
}

#[test]
fn wrong_usage_is_explained() {
    let place = Place::new();
    for (arguments, why) in [
        ("init", "into which directory?"),
        (
            "init made",
            "--harness is missing: one of python, jepsen, java, c, command",
        ),
        ("init made --harness cobol", "not \"cobol\""),
        (
            "init made --harness c --name my_set",
            "\"my_set\" cannot be a host name",
        ),
        (
            "init made --harness c --name database",
            "choose another one",
        ),
        (
            "init made --harness c --database-image postgres",
            "has no tag",
        ),
        (
            "init made --harness c --database-image postgres:latest",
            "another image every day",
        ),
        (
            "init made --harness c --database-image ${DB}:1",
            "not the name of an image",
        ),
        (
            "init made --harness c --base windows",
            "alpine or debian expected",
        ),
        ("init made other --harness c", "other"),
    ] {
        let mut command = place.command(arguments);
        let ended = Running::start(command.current_dir(place.path())).end();
        ended.assert_told(64, why);
        assert!(!place.path().join("made").exists());
    }
}

#[test]
fn the_name_is_the_directorys_where_it_can_be() {
    let place = Place::new();
    for (dir, name) in [("list-append", "list-append"), ("My Test", "jepsen")] {
        let mut command = place.command("init --harness command");
        let ended = Running::start(command.arg(place.path().join(dir))).end();
        assert_eq!((ended.status, &*ended.stderr), (0, ""));
        let template = place.path().join(dir).join("test").join(name);
        assert!(template.join("eventually_check").exists());
    }
}

#[test]
fn at_a_terminal_it_asks() {
    if !installed("script") {
        return eprintln!("skipped: there is no script(1), which makes a terminal");
    }
    let place = Place::new();
    let dir = place.path().join("asked");
    let mut script = Command::new("script")
        .args([
            "-qec",
            &format!("{} init {}", program().display(), dir.display()),
            "/dev/null",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut answers = script.stdin.take().unwrap();
    // One that is not understood is asked for again; an empty one is the default.
    answers
        .write_all(b"cobol\ncommand\nMy Test\nmy-set\n\n")
        .unwrap();
    let ended = script.wait_with_output().unwrap();
    drop(answers);
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{said}");
    for question in [
        "[python]",
        "one of python",
        "[asked]",
        "host name",
        "[postgres:17.6]",
    ] {
        assert!(said.contains(question), "{question}: {said}");
    }
    assert!(dir.join("test/my-set/eventually_check").exists());
    let compose = fs::read_to_string(dir.join("config/docker-compose.yaml")).unwrap();
    assert!(compose.contains("image: postgres:17.6\n"));
}

#[test]
fn the_compose_file_keeps_the_rules() {
    for image in [
        "postgres:17.6",
        "mysql:8.4",
        "mariadb@sha256:0123456789abcdef",
        "redis:8",
        "valkey/valkey:9",
        "mongo:8",
        "localhost:5000/team/database:1",
    ] {
        let place = Place::new();
        let dir = init(
            &place,
            &format!("--harness c --name my-set --database-image {image}"),
        );
        let path = dir.join("config/docker-compose.yaml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains('$'), "{text}");
        let compose = &YamlLoader::load_from_str(&text).unwrap()[0];
        let services = compose["services"].as_hash().unwrap();
        let named = |name: &str| &compose["services"][name];
        assert_eq!(services.len(), 2);
        assert_eq!(named("my-set")["image"].as_str(), Some("my-set-harness:1"));
        assert_eq!(named("database")["image"].as_str(), Some(image));
        for (name, service) in services {
            assert_eq!(&service["container_name"], name);
            assert_eq!(&service["hostname"], name);
            assert_eq!(service["platform"].as_str(), Some("linux/amd64"));
            assert_eq!(service["init"].as_bool(), Some(true));
            assert_eq!(service["environment"]["NO_COLOR"].as_str(), Some("1"));
            for absent in ["build", "logging", "pull_policy", "networks", "restart"] {
                assert_eq!(service[absent], Yaml::BadValue);
            }
        }
        let excluded = &named("my-set")["labels"]["com.antithesis.exclude_from_faults"];
        let kinds: Vec<_> = excluded.as_str().unwrap().split(',').collect();
        assert_eq!(kinds, ["network", "kill", "pause", "stop"]);
        assert_eq!(
            named("my-set")["depends_on"]["database"]["condition"].as_str(),
            Some("service_healthy")
        );
        let check = named("database")["healthcheck"]["test"].as_vec().unwrap();
        assert_eq!(check[0].as_str(), Some("CMD"));
        assert!(check.len() >= 2);
        let environment = named("database")["environment"].as_hash().unwrap();
        assert!(environment.values().all(|value| value.as_str().is_some()));
        let docker = Command::new("docker").args(["compose", "version"]).output();
        if docker.is_ok_and(|ended| ended.status.success()) {
            let mut command = Command::new("docker");
            command
                .args(["compose", "--file"])
                .arg(&path)
                .args(["config", "--quiet"]);
            let ended = Running::start(&mut command).end();
            assert_eq!((ended.status, &*ended.stderr), (0, ""));
        } else {
            eprintln!("skipped: docker compose config (there is no such client)");
        }
    }
}

#[test]
fn dockerfiles_copy_what_is_there_and_use_images_with_tags() {
    for harness in HARNESSES {
        for base in ["alpine", "debian"] {
            let place = Place::new();
            let dir = init(
                &place,
                &format!("--harness {harness} --base {base} --name my-set"),
            );
            for (dockerfile, context) in [("Dockerfile", ""), ("config/Dockerfile", "config")] {
                let text = fs::read_to_string(dir.join(dockerfile)).unwrap();
                let text = text.replace("\\\n", " ");
                let instructions: Vec<Vec<&str>> = text
                    .lines()
                    .filter(|line| !line.is_empty() && !line.starts_with('#'))
                    .map(|line| line.split_whitespace().collect())
                    .collect();
                assert_eq!(instructions[0][0], "FROM", "{text}");
                for instruction in instructions {
                    match instruction[0] {
                        "FROM" => {
                            assert!(instruction[1] == "scratch" || instruction[1].contains(':'))
                        }
                        "COPY" if !instruction[1].starts_with("--from") => {
                            for source in &instruction[1..instruction.len() - 1] {
                                let found = dir.join(context).join(source).exists();
                                assert!(found || source.starts_with("packages/"), "{source}");
                            }
                        }
                        "CMD" => {
                            let argv = instruction[1..].join(" ");
                            let argv: Vec<String> = serde_json::from_str(&argv).unwrap();
                            assert!(
                                argv[0].starts_with('/')
                                    || argv[0] == "java"
                                    || argv[0] == "python"
                            );
                        }
                        "COPY" | "RUN" | "WORKDIR" | "ENV" => {}
                        other => panic!("{other}: {text}"),
                    }
                }
                if context.is_empty() {
                    let last = text.lines().rfind(|line| line.starts_with("FROM")).unwrap();
                    let debian = last.contains("debian") || last.contains("slim");
                    assert_eq!(debian, base == "debian", "{last}");
                    assert!(text.contains("/opt/antithesis/test/v1/"));
                }
            }
        }
    }
}

#[test]
fn a_database_that_is_not_known_is_said() {
    let place = Place::new();
    let dir = place.path().join("made");
    let mut command = place.command("init --harness c --database-image my-db:1");
    let ended = Running::start(command.arg(&dir)).end();
    assert_eq!(ended.status, 0);
    assert!(ended.text().contains("health check"), "{}", ended.text());
}

#[test]
fn scripts_are_understood_by_every_sh() {
    let place = Place::new();
    let dir = init(&place, "--harness command --name my-set");
    for shell in [
        &["dash"][..],
        &["bash", "--posix"],
        &["busybox", "sh"],
        &["mksh"],
    ] {
        if !installed(shell[0]) {
            eprintln!("skipped: there is no {}", shell[0]);
            continue;
        }
        let place = Place::new();
        let mut start = Command::new(shell[0]);
        start.args(&shell[1..]).arg(dir.join("start"));
        let made = Made::start(&place, &dir, &mut start);
        let run = |name: &str| {
            let mut command = Command::new(shell[0]);
            command
                .args(&shell[1..])
                .arg(dir.join("test/my-set").join(name))
                .env("JEPSEN_FIFO_DIR", place.control());
            Running::start(&mut command).end()
        };
        for _ in 0..2 {
            assert!(run("parallel_driver_op").text().starts_with("ok add "));
        }
        run("eventually_check").assert_result(0, b"valid: 2 elements\n");
        fs::write(place.control().join("database"), "").unwrap();
        assert_eq!(run("eventually_check").status, 1);
        // What cannot be read is no finding.
        fs::remove_file(place.control().join("database")).unwrap();
        let check = run("eventually_check");
        assert_eq!(check.status, 0);
        assert!(check.text().starts_with("unknown"), "{}", check.text());
        made.stop();
    }
}
