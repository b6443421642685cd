//! `aurora-fuzz`: so many wrong inputs on all cores, and on the first failure the input and the command that repeats it.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use aurora_fuzz::{Target, all, input, run};

const USAGE: &str =
    "usage: aurora-fuzz [--inputs N] [--first N] [--seed N] [--only TARGET] [--jobs N]
  --inputs N      how many inputs (default 100000)
  --first N       the number of the first (default 0); with --inputs 1 it repeats one
  --seed N        another sequence of inputs (default 1)
  --only TARGET   inputs for one decoder
  --jobs N        threads (default: all cores)";

/// Inputs between two lines of progress.
const TELL: u64 = 500_000;
/// An input that takes longer is a failure: nothing here is large.
const LIMIT_S: f64 = 5.0;

struct Arguments {
    inputs: u64,
    first: u64,
    seed: u64,
    only: Option<usize>,
    jobs: u64,
}

fn parse(
    mut arguments: impl Iterator<Item = String>,
    targets: &[Target],
) -> Result<Arguments, String> {
    let (inputs, first, seed, only, jobs) = (100_000, 0, 1, None, 0);
    let mut parsed = Arguments {
        inputs,
        first,
        seed,
        only,
        jobs,
    };
    while let Some(argument) = arguments.next() {
        let value = arguments
            .next()
            .ok_or_else(|| format!("{argument} needs a value"))?;
        let number = || {
            value
                .parse::<u64>()
                .map_err(|_| format!("{argument}: expected a number, got {value:?}"))
        };
        match argument.as_str() {
            "--inputs" => parsed.inputs = number()?,
            "--first" => parsed.first = number()?,
            "--seed" => parsed.seed = number()?,
            "--jobs" => parsed.jobs = number()?,
            "--only" => {
                let names: Vec<&str> = targets.iter().map(|target| target.name).collect();
                let found = names.iter().position(|name| *name == value);
                let known = || format!("unknown target {value}; known: {}", names.join(" "));
                parsed.only = Some(found.ok_or_else(known)?);
            }
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok(parsed)
}

/// What went wrong with an input, with all that is needed to repeat it.
fn story(arguments: &Arguments, target: &Target, number: u64, bytes: &[u8], what: &str) -> String {
    let hex: String = bytes
        .iter()
        .take(4096)
        .map(|b| format!("{b:02x}"))
        .collect();
    let only = arguments
        .only
        .map_or(String::new(), |_| format!(" --only {}", target.name));
    format!(
        "{}: input {number} {what}\n  {} bytes: {hex}\n  aurora-fuzz --seed {} --first {number} --inputs 1{only}",
        target.name,
        bytes.len(),
        arguments.seed
    )
}

/// Every so many inputs, beginning with one of the first; the story of a failure.
#[expect(
    clippy::disallowed_methods,
    reason = "an input that takes too long is a failure, and only a clock tells"
)]
fn work(
    arguments: &Arguments,
    targets: &[Target],
    (first, step): (u64, u64),
    (done, stop): (&AtomicU64, &AtomicBool),
) -> Option<String> {
    let end = arguments.first + arguments.inputs;
    let mut number = arguments.first + first;
    while number < end && !stop.load(Ordering::Relaxed) {
        let input = input(targets, arguments.seed, number, arguments.only);
        let target = &targets[input.target];
        let begun = Instant::now();
        let mut outcome = run(target, &input.bytes);
        let took = begun.elapsed().as_secs_f64();
        if outcome.is_ok() && took > LIMIT_S {
            outcome = Err(format!("took {took:.1} s"));
        }
        if let Err(what) = outcome {
            stop.store(true, Ordering::Relaxed);
            return Some(story(arguments, target, number, &input.bytes, &what));
        }
        let count = done.fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_multiple_of(TELL) {
            eprintln!("{count} inputs");
        }
        number += step;
    }
    None
}

#[expect(
    clippy::disallowed_methods,
    reason = "a program takes its arguments, counts its cores and looks at the clock here and nowhere else"
)]
fn main() -> ExitCode {
    let targets = all();
    let arguments = match parse(std::env::args().skip(1), &targets) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let jobs = match arguments.jobs {
        0 => cores,
        jobs => jobs,
    };
    // A panic is a failure that is told with its input.
    std::panic::set_hook(Box::new(|_| {}));
    let (done, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let begun = Instant::now();
    let failures: Vec<String> = std::thread::scope(|scope| {
        let (arguments, targets, shared) = (&arguments, &targets[..], (&done, &stop));
        let threads: Vec<_> = (0..jobs)
            .map(|job| scope.spawn(move || work(arguments, targets, (job, jobs), shared)))
            .collect();
        let failed = threads.into_iter().map(|thread| thread.join());
        failed
            .filter_map(|ended| ended.unwrap_or_else(|_| Some("a thread died".to_owned())))
            .collect()
    });
    let took = begun.elapsed().as_secs_f64();
    let count = done.load(Ordering::Relaxed);
    println!(
        "{count} inputs for {} decoders in {took:.0} s, {} failed",
        targets.len(),
        failures.len()
    );
    failures.iter().for_each(|story| println!("{story}"));
    match failures.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
