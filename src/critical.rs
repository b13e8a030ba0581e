//! Threads and tasks that the whole gateway depends on. A panic in a request ends only that request. A panic in one of
//! these would leave the gateway half working: it would still respond, but no longer write to the store, say, or close
//! the connections of ended sessions. So the process exits, and the service manager starts a new one.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use futures_util::FutureExt as _;

use crate::logging;

/// Starts a thread. If it panics, the process exits.
pub fn spawn_thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let name = name.to_owned();
    let run = move || {
        if catch_unwind(AssertUnwindSafe(work)).is_err() {
            exit_after_panic(std::thread::current().name().unwrap_or_default());
        }
    };
    std::thread::Builder::new().name(name).spawn(run)
}

/// Starts a task. If it panics, the process exits; it may return or be aborted.
pub fn spawn(name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        if AssertUnwindSafe(work).catch_unwind().await.is_err() {
            exit_after_panic(name);
        }
    })
}

/// Exits without draining: what the store has acknowledged is on disk, and a half-working gateway must not go on.
fn exit_after_panic(part: &str) -> ! {
    tracing::error!(part, "critical task panicked, exiting");
    logging::flush();
    std::process::exit(1)
}

#[cfg(test)]
pub(crate) mod testing {
    use std::process::Command;

    const ROLE: &str = "AUTHGATE_TEST_ROLE";

    /// What the test should do; set only in the child process.
    pub(crate) fn role() -> Option<String> {
        std::env::var(ROLE).ok()
    }

    /// Runs one test of this binary in a child process; returns its exit code and standard error.
    pub(crate) fn play(test: &str, role: &str) -> (Option<i32>, String) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let output = command.args([test, "--exact", "--nocapture"]).env(ROLE, role).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{play, role};
    use super::*;
    use crate::clock::Clock;
    use crate::logging::Log;

    /// Runs a thread, task or request that panics, or one that does not.
    fn live(role: &str) {
        Log::start(Clock::system()).unwrap();
        let secret = std::env::args().count();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        match role {
            "thread" => spawn_thread("store", move || panic!("quotes what {secret} sent")).unwrap().join().unwrap(),
            "task" => runtime.block_on(async { spawn("sweep", async { panic!("on purpose") }).await.unwrap() }),
            "request" => runtime.block_on(async {
                assert!(tokio::spawn(async { panic!("on purpose") }).await.is_err());
            }),
            _ => {
                spawn_thread("store", || {}).unwrap().join().unwrap();
                runtime.block_on(async {
                    let endless = spawn("sweep", std::future::pending());
                    endless.abort();
                    assert!(endless.await.is_err_and(|error| error.is_cancelled()));
                });
            }
        }
    }

    #[test]
    fn the_process_ends_where_a_part_panics_and_continues_where_a_request_does() {
        if let Some(role) = role() {
            return live(&role);
        }
        let this = "critical::tests::the_process_ends_where_a_part_panics_and_continues_where_a_request_does";
        for (role, code, part) in
            [("thread", 1, Some("store")), ("task", 1, Some("sweep")), ("request", 0, None), ("none", 0, None)]
        {
            let (ended, said) = play(this, role);
            assert_eq!(ended, Some(code), "{role}: {said}");
            let last = part.map(|part| format!("\"part\":\"{part}\""));
            assert!(last.is_none_or(|last| said.lines().last().unwrap().contains(&last)), "{said}");
            let places = said.lines().filter(|line| line.contains("\"message\":\"panic\"")).count();
            assert_eq!(places, usize::from(role != "none"), "{said}");
            assert!(!said.contains("quotes what"), "the text of a panic may hold what a client sent: {said}");
        }
    }
}
