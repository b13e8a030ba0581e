//! `authgate run`: serves until a shutdown signal.

use super::check::remark;
use super::{CommandError, Globals, RunArgs};
use crate::config;
use crate::server;

/// Loads the configuration, or builds one for a single app, and serves.
pub fn run(globals: &Globals, args: &RunArgs) -> Result<(), CommandError> {
    let state_dir = globals.state_dir.clone();
    let (config, source) = if let Some(url) = &args.to {
        if globals.config.is_some() {
            return Err(CommandError::Usage(
                "--to serves one app without a configuration file: leave out --config or --to".to_owned(),
            ));
        }
        (config::one_app(url, args.listen.as_deref(), state_dir.as_deref()), None)
    } else {
        let source = server::Source { path: globals.config_path(), state_dir };
        (source.load(), Some(source))
    };
    let config = config.map_err(CommandError::Config)?;
    remark(&config.warnings);
    server::serve(config, source).map_err(|error| CommandError::Refused(error.to_string()))
}
