//! `aurora-sim --seeds 0..1000`: runs worlds and prints the seeds that fail.

use std::ops::Range;
use std::process::ExitCode;

use aurora_sim::{Config, Planted, Report, World};

const USAGE: &str = "usage: aurora-sim --seeds A..B [--planted NAME] [--trace]
  --seeds A..B    the worlds to run
  --planted NAME  with a mistake built in (names: see Planted)
  --trace         print the last events of a world that fails";

struct Arguments {
    seeds: Range<u64>,
    planted: Option<Planted>,
    trace: bool,
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut parsed = Arguments {
        seeds: 0..100,
        planted: None,
        trace: false,
    };
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let mut value = || {
            arguments
                .next()
                .ok_or_else(|| format!("{argument} needs a value"))
        };
        match argument.as_str() {
            "--seeds" => parsed.seeds = range(&value()?)?,
            "--planted" => {
                let name = value()?;
                let found = Planted::ALL
                    .into_iter()
                    .find(|planted| format!("{planted:?}") == name);
                parsed.planted = Some(
                    found.ok_or_else(|| format!("unknown: {name}; known: {:?}", Planted::ALL))?,
                );
            }
            "--trace" => parsed.trace = true,
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok(parsed)
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let number = |s: &str| {
        s.parse::<u64>()
            .map_err(|_| format!("expected a number, got {s:?}"))
    };
    match text.split_once("..") {
        Some((first, end)) => Ok(number(first)?..number(end)?),
        None => number(text).map(|seed| seed..seed + 1),
    }
}

fn print(report: &Report, trace: bool) {
    let Report {
        seed,
        hash,
        events,
        numbered,
        acknowledged,
        opened,
        boots,
        compared,
        failure,
    } = report;
    let counts = format!(
        "{events} events, {acknowledged}/{numbered} MTRs, {opened} recoveries, {boots} starts, {compared} pages compared"
    );
    match failure {
        None => println!("seed {seed}: ok {hash:016x} ({counts})"),
        Some((what, tail)) => {
            if trace {
                println!("{tail}");
            }
            println!("seed {seed}: FAILED ({counts})\n  {what}");
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a program takes its arguments here and nowhere else"
)]
fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let mut failed = Vec::new();
    for seed in arguments.seeds {
        let mut config = Config::draw(seed);
        config.planted = arguments.planted;
        let report = World::run(config);
        print(&report, arguments.trace);
        if report.failure.is_some() {
            failed.push(seed);
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failing seeds: {failed:?}");
    ExitCode::FAILURE
}
