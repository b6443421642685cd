//! The threads of an open cluster: all of them run, or none.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};

use crate::Error;
use crate::cluster::Shared;

type Body = Box<dyn FnOnce() + Send>;

/// Starts the threads of a cluster. Where one cannot be started, those before it have ended when this returns: none goes on
/// writing to a directory that nobody holds.
pub(crate) fn start(shared: &Arc<Shared>) -> Result<Vec<JoinHandle<()>>, Error> {
    let spawn = |name: &str, body| Builder::new().name(name.into()).spawn(body);
    start_all(bodies(shared), spawn, || stop(shared))
}

fn bodies(shared: &Arc<Shared>) -> Vec<(&'static str, Body)> {
    let (log, maintained, controlled) = (shared.clone(), shared.clone(), shared.clone());
    let mut bodies: Vec<(&'static str, Body)> = vec![
        (
            "aurora-log",
            Box::new(move || log.volume.run_log_thread(&log.stop)),
        ),
        ("aurora-maint", Box::new(move || maintained.maintain())),
        ("aurora-control", Box::new(move || controlled.control())),
    ];
    if shared.options.backup.is_some() && shared.read_only.is_none() {
        let shared = shared.clone();
        bodies.push(("aurora-backup", Box::new(move || shared.back_up())));
    }
    if shared.volume.devices.len() > 1 {
        for device in &shared.volume.devices {
            let (device, shared) = (device.clone(), shared.clone());
            bodies.push((
                "aurora-device",
                Box::new(move || device.run(&shared.volume, &shared.stop)),
            ));
        }
    }
    bodies
}

/// Has every thread look at its stop flag, which is set.
fn stop(shared: &Shared) {
    shared.stop.store(true, Ordering::Release);
    shared.volume.wake_threads();
    shared.maintenance.wake();
    shared.wake_control();
    shared.backups.stop();
}

fn start_all(
    bodies: Vec<(&'static str, Body)>,
    spawn: impl Fn(&str, Body) -> io::Result<JoinHandle<()>>,
    stop: impl Fn(),
) -> Result<Vec<JoinHandle<()>>, Error> {
    let mut threads = Vec::with_capacity(bodies.len());
    for (name, body) in bodies {
        match spawn(name, body) {
            Ok(thread) => threads.push(thread),
            Err(source) => {
                stop();
                for thread in threads {
                    // A thread that panicked has been reported on standard error.
                    let _ = thread.join();
                }
                return Err(Error::io(Path::new(name), source));
            }
        }
    }
    Ok(threads)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::time::Duration;

    use super::*;

    #[test]
    fn threads_before_one_that_does_not_start_have_ended() {
        let (stopped, running) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let body = || -> Body {
            let (stopped, running) = (stopped.clone(), running.clone());
            running.fetch_add(1, Ordering::AcqRel);
            Box::new(move || {
                while !stopped.load(Ordering::Acquire) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                running.fetch_sub(1, Ordering::AcqRel);
            })
        };
        let bodies = vec![("first", body()), ("second", body()), ("third", body())];
        let spawn = |name: &str, body| match name {
            "third" => Err(io::ErrorKind::WouldBlock.into()),
            _ => Builder::new().spawn(body),
        };
        let started = start_all(bodies, spawn, || stopped.store(true, Ordering::Release));
        assert!(matches!(started, Err(Error::Io { path, .. }) if path == Path::new("third")));
        assert_eq!(
            running.load(Ordering::Acquire),
            1,
            "only the third, which never ran"
        );
    }
}
