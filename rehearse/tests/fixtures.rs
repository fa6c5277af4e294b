//! Templates with one classic mistake each. What is said must name the mistake and say what to do.

mod common;

use common::{fixture, rehearse};
use std::sync::Mutex;

struct Case {
    template: &'static str,
    options: &'static str,
    /// A file in fixtures/harness, with its arguments.
    harness: &'static str,
    status: i32,
    says: &'static [&'static str],
}

const fn case(template: &'static str, status: i32, says: &'static [&'static str]) -> Case {
    Case {
        template,
        options: "--timelines 1 --seed 1",
        harness: "",
        status,
        says,
    }
}

const fn with(options: &'static str, case: Case) -> Case {
    Case { options, ..case }
}

const fn beside(harness: &'static str, case: Case) -> Case {
    Case { harness, ..case }
}

const CASES: &[Case] = &[
    case(
        "bad_name",
        1,
        &[
            "paralel_driver_op: is not a test command",
            "Did you mean parallel_driver_?",
        ],
    ),
    case(
        "no_run_bit",
        1,
        &[
            "parallel_driver_op: is not executable",
            "chmod +x it, also in the image",
        ],
    ),
    case(
        "no_shebang",
        1,
        &["neither a binary nor a script with a shebang", "#!/bin/sh"],
    ),
    case(
        "windows_line_ends",
        1,
        &["Windows line ends", "Save it with Unix line ends"],
    ),
    case(
        "no_interpreter",
        1,
        &[
            "\"/opt/python9/bin/python9\" does not exist",
            "correct the shebang",
        ],
    ),
    case(
        "directory_among_commands",
        1,
        &["lib: is a directory", "let its name begin with helper_"],
    ),
    case(
        "no_driver",
        1,
        &["there is nothing to schedule", "needs a parallel_driver_"],
    ),
    case(
        "templates",
        1,
        &[
            "bank: is a template of its own",
            "rehearse that directory by itself",
        ],
    ),
    case(
        "only_singleton",
        0,
        &[
            "advice:",
            "the only driver is a singleton_driver_",
            "parallel_driver_",
        ],
    ),
    with(
        "--timelines 8 --seed 1 --commands 80 --faults harness_kill",
        beside(
            "service 0",
            case(
                "transient_error",
                1,
                &[
                    "parallel_driver_call exits 0",
                    "exited with 1",
                    "connection refused",
                    "harness was away",
                    "retry, or exit 0",
                ],
            ),
        ),
    ),
    with(
        "--timelines 8 --seed 1 --commands 80 --faults harness_kill",
        beside(
            "service 0",
            case("set_e", 1, &["(set -e)", "retry, or handle the error"]),
        ),
    ),
    with(
        "--timelines 1 --commands 2 --hang 1",
        case(
            "never_returns",
            1,
            &[
                "nothing hangs",
                "still ran after 1 s: sleep 1000",
                "sleeps. Bound what it does",
                "it never ended by itself",
            ],
        ),
    ),
    with(
        "--timelines 1 --commands 1 --hang 1",
        case(
            "waits_for_a_fifo",
            1,
            &[
                "cat",
                "waits in open of",
                "/control/op-",
                "nobody else has open",
            ],
        ),
    ),
    with(
        "--timelines 1 --commands 2",
        case(
            "leaves_a_child",
            1,
            &["left a process behind: sleep 1000", "wait for children"],
        ),
    ),
    case(
        "setup_complete_in_first",
        1,
        &[
            "first_setup (command 0) said setup_complete",
            "Say it once, from the harness",
        ],
    ),
    with(
        "--timelines 12 --seed 1 --commands 60 --faults harness_kill",
        beside(
            "service 0.5",
            case(
                "eventually_without_retry",
                1,
                &[
                    "eventually_check exits 0",
                    "retry until it works or a deadline is over",
                ],
            ),
        ),
    ),
    with(
        "--timelines 1 --seed 6 --commands 8 --faults term",
        case(
            "term_not_handled",
            1,
            &[
                "was ended by SIGTERM",
                "handle SIGTERM",
                "trap 'exit 0' TERM",
            ],
        ),
    ),
    with(
        "--timelines 1 --seed 6 --commands 8 --faults term",
        case(
            "deaf_to_term",
            1,
            &[
                "still ran 10 s after SIGTERM",
                "let it end when SIGTERM comes",
            ],
        ),
    ),
    with(
        "--timelines 1 --commands 3",
        case(
            "writes_into_its_template",
            1,
            &["helper_last_run was written in the template", "mktemp -d"],
        ),
    ),
    with(
        "--timelines 1 --commands 3",
        beside(
            "service 0",
            case(
                "litters_the_control_directory",
                1,
                &[
                    "the file notes was still in the control directory",
                    "commands put nothing else there",
                ],
            ),
        ),
    ),
    with(
        "--timelines 1 --commands 2",
        case(
            "prints_without_end",
            1,
            &["printed 50 MB", "write the rest to a file"],
        ),
    ),
    with(
        "--timelines 1 --commands 2",
        case(
            "reads_stdin",
            1,
            &["waited for its standard input", "</dev/null"],
        ),
    ),
    with(
        "--timelines 1 --commands 2",
        case(
            "program_missing",
            1,
            &["exited with 127", "mysqladmin-9", "install it in the image"],
        ),
    ),
    with(
        "--timelines 10 --commands 2",
        case(
            "sdk_assertions",
            1,
            &[
                "always: the total is kept",
                "it did not hold",
                "{\"total\":90}",
                "sometimes: a transfer fails",
                "it never held",
                "reachable: the slow path is taken",
                "nothing ever came there",
            ],
        ),
    ),
    with(
        "--timelines 1 --commands 2",
        case(
            "no_catalogue",
            1,
            &[
                "no assertion was declared",
                "\"nobody is poor\"",
                "Declare assertions when the program starts",
            ],
        ),
    ),
    with(
        "--timelines 1 --setup 1",
        beside(
            "never_ready",
            case(
                "a_helper_beside",
                1,
                &[
                    "neither setup_complete nor",
                    "came within 1 s",
                    "jepsen-composer setup-complete",
                ],
            ),
        ),
    ),
    with(
        "--timelines 1 --duration 2 --parallel 1 --commands 200",
        beside(
            "ends_early",
            case(
                "every_kind",
                1,
                &[
                    "the harness stays up",
                    "exited with 3",
                    "Its last line: \"out of beans\"",
                ],
            ),
        ),
    ),
    with(
        "--timelines 3",
        case("a_helper_beside", 0, &["properties hold"]),
    ),
    with(
        "--timelines 9 --seed 4 --commands 20",
        beside("service 0", case("every_kind", 0, &["properties hold"])),
    ),
];

#[test]
fn each_mistake_is_told_with_what_to_do() {
    let next = Mutex::new(CASES.iter());
    let wrong = Mutex::new(Vec::new());
    // Most of their time they wait.
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                loop {
                    let Some(case) = next.lock().unwrap().next() else {
                        break;
                    };
                    if let Err(why) = check(case) {
                        wrong.lock().unwrap().push(why);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn check(case: &Case) -> Result<(), String> {
    let template = common::copy(&fixture(case.template));
    let mut arguments: Vec<String> = case.options.split(' ').map(str::to_owned).collect();
    arguments.push(template.path().join(case.template).display().to_string());
    if !case.harness.is_empty() {
        let mut words = case.harness.split(' ');
        let program = fixture("harness").join(words.next().unwrap());
        arguments.extend(["--".to_owned(), program.display().to_string()]);
        arguments.extend(words.map(str::to_owned));
    }
    let played = rehearse(&arguments);
    // As people read it, whatever the width.
    let said = played
        .stdout
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let missing: Vec<_> = case
        .says
        .iter()
        .filter(|words| !said.contains(*words))
        .collect();
    match played.status == Some(case.status) && missing.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "{}: exit {:?}, not said: {missing:?}\n{}\n{}",
            case.template, played.status, played.stdout, played.stderr
        )),
    }
}
