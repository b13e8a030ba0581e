//! `authgate run`: serves until a stop signal.

use super::{CommandError, Globals, RunArgs};
use crate::config;
use crate::server;

/// Loads the configuration, or makes one for a single app, and serves.
pub fn run(globals: &Globals, args: &RunArgs) -> Result<(), CommandError> {
    let config = match &args.to {
        Some(url) => config::one_app(url, args.listen.as_deref(), globals.state_dir.as_deref()),
        None => config::load(&globals.config_path(), globals.state_dir.as_deref(), config::Secrets::Read),
    };
    server::serve(config.map_err(CommandError::Config)?).map_err(|error| CommandError::Refused(error.to_string()))
}
