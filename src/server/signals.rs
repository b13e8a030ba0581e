//! Signal handling.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::critical;

/// Installed before the gateway reports that it is ready, so that no signal finds the default action and kills the
/// process.
pub(super) struct Signals {
    pub(super) stop: Stop,
    pub(super) reload: Hangup,
}

/// SIGTERM, SIGINT and SIGQUIT.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

/// SIGHUP. If the process was started with it ignored (`nohup`), it reloads but never stops the process.
pub(super) struct Hangup {
    hangup: Signal,
    pub(super) was_ignored: bool,
}

impl Signals {
    pub(super) fn listen() -> std::io::Result<Self> {
        let was_ignored = is_ignored(SignalKind::hangup());
        let stop = Stop {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        };
        ignore_others()?;
        Ok(Self { stop, reload: Hangup { hangup: signal(SignalKind::hangup())?, was_ignored } })
    }
}

impl Stop {
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}

impl Hangup {
    pub(super) async fn wait(&mut self) {
        self.hangup.recv().await;
    }
}

/// Ignores signals that other servers use (logrotate sends SIGUSR1) and whose default action kills the process.
fn ignore_others() -> std::io::Result<()> {
    let (mut first, mut second) = (signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?);
    let mut alarm = signal(SignalKind::alarm())?;
    critical::spawn("signals", async move {
        loop {
            let signal = tokio::select! {
                _ = first.recv() => "SIGUSR1",
                _ = second.recv() => "SIGUSR2",
                _ = alarm.recv() => "SIGALRM",
            };
            tracing::info!(signal, "signal ignored: SIGHUP reloads, SIGTERM stops");
        }
    });
    Ok(())
}

/// Whether the process was started with a signal ignored (proc_pid_status(5), SigIgn).
fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (kind.as_raw_value() - 1) & 1 == 1
}
