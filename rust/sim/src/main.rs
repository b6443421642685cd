//! `aurora-sim`: runs worlds on all cores and reports the seeds that fail, each made smaller, with the command that replays it.

use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use aurora_sim::shrink::shrink;
use aurora_sim::{Config, Kind, Planted, Report, World};

const USAGE: &str =
    "usage: aurora-sim [--seeds A..B] [--kind NAME] [--planted NAME | --mutations] [options]
  --seeds A..B     the worlds to run (default 0..100)
  --kind NAME      pages, ring, bank, append, ...; all (the default) takes them in turn
  --planted NAME   with a mistake built in
  --mutations      each mistake in turn, until it is caught, as a table
  --beyond         more is lost than the volume promises to bear
  --faults N       at most so many faults
  --end US         faults end after so many virtual microseconds
  --jobs N         threads (default: all cores)
  --trace          one world, event by event
  --keep-going     do not stop at the first failure
  --verbose        a line for each world";

struct Arguments {
    seeds: Range<u64>,
    kind: Option<Kind>,
    planted: Option<Planted>,
    mutations: bool,
    beyond: bool,
    faults: Option<u64>,
    end_us: Option<u64>,
    jobs: usize,
    trace: bool,
    keep_going: bool,
    verbose: bool,
}

impl Arguments {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
        let mut parsed = Arguments {
            seeds: 0..100,
            kind: None,
            planted: None,
            mutations: false,
            beyond: false,
            faults: None,
            end_us: None,
            jobs: 0,
            trace: false,
            keep_going: false,
            verbose: false,
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
                "--kind" => parsed.kind = kind(&value()?)?,
                "--planted" => parsed.planted = Some(planted(&value()?)?),
                "--mutations" => parsed.mutations = true,
                "--beyond" => parsed.beyond = true,
                "--faults" => parsed.faults = Some(number(&value()?)?),
                "--end" => parsed.end_us = Some(number(&value()?)?),
                "--jobs" => parsed.jobs = number(&value()?)? as usize,
                "--trace" => parsed.trace = true,
                "--keep-going" => parsed.keep_going = true,
                "--verbose" => parsed.verbose = true,
                other => return Err(format!("unknown argument {other}")),
            }
        }
        Ok(parsed)
    }

    fn config(&self, seed: u64, planted: Option<Planted>) -> Config {
        let kind = self.kind.unwrap_or_else(|| {
            let kinds: Vec<Kind> = Kind::all().collect();
            kinds[seed as usize % kinds.len()]
        });
        let mut config = Config::of(seed, kind);
        config.planted = planted;
        config.beyond = self.beyond;
        config.faults_max = self.faults.unwrap_or(config.faults_max);
        config.end_us = self.end_us.unwrap_or(config.end_us);
        config
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("expected a number, got {text:?}"))
}

fn range(text: &str) -> Result<Range<u64>, String> {
    match text.split_once("..") {
        Some((first, end)) => Ok(number(first)?..number(end)?),
        None => number(text).map(|seed| seed..seed + 1),
    }
}

fn kind(name: &str) -> Result<Option<Kind>, String> {
    if name == "all" {
        return Ok(None);
    }
    let found = Kind::all().find(|kind| kind.name() == name);
    let known: Vec<String> = Kind::all().map(Kind::name).collect();
    found
        .map(Some)
        .ok_or_else(|| format!("unknown kind {name}; known: {}", known.join(" ")))
}

fn planted(name: &str) -> Result<Planted, String> {
    let found = Planted::all().find(|planted| planted.name() == name);
    let known: Vec<String> = Planted::all().map(Planted::name).collect();
    found.ok_or_else(|| format!("unknown mistake {name}; known: {}", known.join(" ")))
}

/// The command that runs this world again, with its trace.
fn command(config: &Config) -> String {
    let mut out = format!(
        "aurora-sim --kind {} --seeds {} --trace",
        config.kind.name(),
        config.seed
    );
    if let Some(planted) = config.planted {
        out += &format!(" --planted {}", planted.name());
    }
    if config.faults_max != u64::MAX {
        out += &format!(" --faults {}", config.faults_max);
    }
    if config.end_us != Config::of(config.seed, config.kind).end_us {
        out += &format!(" --end {}", config.end_us);
    }
    if config.beyond {
        out += " --beyond";
    }
    out
}

fn line(config: &Config, report: &Report) -> String {
    let [commits, in_doubt, reads] = report.clients;
    let [waited, given_up] = report.locks;
    let [handled, given] = report.effort;
    let Report {
        hash,
        events,
        numbered,
        acknowledged,
        opened,
        boots,
        compared,
        faults,
        ..
    } = report;
    format!(
        "{} {}: {hash:016x} ({events} lines of {handled} events, {faults} faults, {acknowledged}/{numbered} MTRs, {commits} commits, {in_doubt} in doubt, {reads} reads, {waited} locks waited for, {given_up} given up, {opened} recoveries, {boots} starts, {compared} pages compared, {given} given)",
        config.kind.name(),
        config.seed
    )
}

/// A failing world, made smaller and told.
fn tell(config: &Config, report: Report) {
    let what = report.failure.clone().unwrap_or_default();
    println!("FAILED {}\n  {what}", line(config, &report));
    let (small, report, tries) = shrink(config, report);
    let traced = World::run_traced(small.clone());
    let what = traced.failure.unwrap_or_default();
    let lines: Vec<&str> = traced.trace.lines().collect();
    println!("the last events:");
    lines[lines.len().saturating_sub(30)..]
        .iter()
        .for_each(|line| println!("  {line}"));
    println!(
        "after {tries} smaller worlds, with {} faults, at {} us:\n  {what}\n  {}",
        report.faults,
        report.now_us,
        command(&small)
    );
}

/// Runs the seeds on all threads; `each` is told of every world in the order in which they end, and may say to stop.
#[expect(
    clippy::disallowed_methods,
    reason = "each world has one thread; only the program uses several"
)]
fn run(
    seeds: Range<u64>,
    jobs: usize,
    config: impl Fn(u64) -> Config + Sync,
    mut each: impl FnMut(Config, Report) -> bool,
) {
    let (next, stop) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let (send, receive) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (send, next, stop, config) = (send.clone(), &next, &stop, &config);
            let end = seeds.end;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    let config = config(seed);
                    let report = World::run(config.clone());
                    if send.send((config, report)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        while let Ok((config, report)) = receive.recv() {
            if !each(config, report) {
                stop.store(true, Ordering::Relaxed);
            }
        }
    });
}

#[expect(
    clippy::disallowed_methods,
    reason = "only the program measures how long worlds take"
)]
fn worlds(arguments: &Arguments, jobs: usize) -> bool {
    let began = Instant::now();
    let (mut done, mut virtual_us) = (0u64, 0u64);
    let mut failed: Vec<(Config, Report)> = Vec::new();
    let all = arguments.seeds.end.saturating_sub(arguments.seeds.start);
    let config = |seed| arguments.config(seed, arguments.planted);
    run(arguments.seeds.clone(), jobs, config, |config, report| {
        done += 1;
        virtual_us += report.now_us;
        if arguments.verbose {
            let failed = if report.failure.is_some() {
                "FAILED "
            } else {
                ""
            };
            println!("{failed}{}", line(&config, &report));
        } else if done.is_multiple_of((all / 20).max(1)) {
            eprintln!("{done} of {all} worlds, {} failed", failed.len());
        }
        if report.failure.is_some() {
            failed.push((config, report));
        }
        arguments.keep_going || failed.is_empty()
    });
    let seconds = began.elapsed().as_secs_f64();
    let of_time = virtual_us as f64 / 1e6;
    let speed = of_time / seconds / jobs as f64;
    println!(
        "{done} worlds, {of_time:.0} virtual seconds in {seconds:.1} s on {jobs} threads: {speed:.0} virtual seconds per second and thread; {} failed",
        failed.len()
    );
    let clean = failed.is_empty();
    failed.sort_by_key(|(config, _)| config.seed);
    for (config, report) in failed {
        tell(&config, report);
    }
    clean
}

/// Each mistake until it is caught; a table for `docs/design/simulation.md`.
fn mutations(arguments: &Arguments, jobs: usize) -> bool {
    println!("| planted | seeds until caught | by |\n|---|---|---|");
    let mut all_caught = true;
    for planted in Planted::all() {
        if arguments.planted.is_some_and(|only| only != planted) {
            continue;
        }
        let mut caught: Option<(Config, String)> = None;
        let mut tried = 0;
        let config = |seed| arguments.config(seed, Some(planted));
        run(arguments.seeds.clone(), jobs, config, |config, report| {
            tried += 1;
            if let Some(what) = report.failure
                && caught
                    .as_ref()
                    .is_none_or(|(known, _)| config.seed < known.seed)
            {
                caught = Some((config, what));
            }
            caught.is_none()
        });
        let name = planted.name();
        match caught {
            Some((config, what)) => {
                let story: String = what.chars().take(90).collect();
                println!(
                    "| `{name}` | {} | {}: {} |",
                    config.seed - arguments.seeds.start + 1,
                    config.kind.name(),
                    story.replace('|', "/")
                );
            }
            None => {
                all_caught = false;
                println!("| `{name}` | **not in {tried}** | |");
            }
        }
    }
    all_caught
}

#[expect(
    clippy::disallowed_methods,
    reason = "a program takes its arguments and counts its cores here and nowhere else"
)]
fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = if arguments.jobs == 0 {
        cores
    } else {
        arguments.jobs
    };
    let fine = if arguments.trace {
        let config = arguments.config(arguments.seeds.start, arguments.planted);
        let report = World::run_traced(config.clone());
        print!("{}", report.trace);
        match &report.failure {
            Some(what) => println!("FAILED {}\n  {what}", line(&config, &report)),
            None => println!("ok {}", line(&config, &report)),
        }
        report.failure.is_none()
    } else if arguments.mutations {
        mutations(&arguments, jobs)
    } else {
        worlds(&arguments, jobs)
    };
    if fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
