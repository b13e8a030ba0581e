//! `authgate key ...`: the keys that sign session tokens, and the sealing key. Their secrets are never shown.

use std::path::Path;

use super::people::{instant, looked, open, remark, say, say_json, settle, table};
use super::{CommandError, Globals, KeyCommand};
use crate::account::{OldKeys, admin::signing_keys};
use crate::sealing::SealingKey;
use crate::store::KeyRow;

/// Runs the command.
pub fn run(globals: &Globals, command: KeyCommand) -> Result<(), CommandError> {
    let mut admin = if matches!(command, KeyCommand::List { .. }) { looked(globals)? } else { open(globals)? };
    match command {
        KeyCommand::Rotate { drop_old: false } => {
            let kid = signing_keys::rotate(&mut admin, OldKeys::Kept)?;
            settle(&mut admin);
            remark(&format!(
                "key {kid} now signs sessions; backend tokens switch to new keys in two minutes; existing sessions stay valid"
            ));
            Ok(())
        }
        KeyCommand::Rotate { drop_old: true } => {
            let kid = signing_keys::rotate(&mut admin, OldKeys::Dropped)?;
            settle(&mut admin);
            remark(&format!("key {kid} and new keys for backend tokens are now in use; everyone is signed out"));
            Ok(())
        }
        KeyCommand::RotateSecrets { drop_old: true, .. } => {
            signing_keys::rotate(&mut admin, OldKeys::DroppedWithSealingKey)?;
            remark("new sealing key and new signing keys are now in use; everyone is signed out");
            Ok(())
        }
        KeyCommand::RotateSecrets { drop_old: false, new_key } => {
            let given = new_key.as_deref().map(read_key).transpose()?;
            let id = signing_keys::seal_again(&mut admin, given)?;
            settle(&mut admin);
            remark(&match &new_key {
                None => format!("secrets are now sealed with key {id}; backups made before still need the key before"),
                Some(file) => format!(
                    "secrets are now sealed with key {id}: put {} in the old key's place, then start the gateway",
                    file.display()
                ),
            });
            Ok(())
        }
        KeyCommand::List { json: true } => {
            let key = |key: &KeyRow| {
                serde_json::json!({
                    "id": key.kid,
                    "algorithm": key.algorithm,
                    "created": instant(key.created),
                    "retired": key.retired.map(instant),
                    "signs": key.retired.is_none(),
                })
            };
            say_json(&signing_keys::list(&mut admin)?.iter().map(key).collect())
        }
        KeyCommand::List { json: false } => {
            let cells = |key: &KeyRow| {
                let state =
                    key.retired.map_or_else(|| "signs".to_owned(), |at| format!("verifies, retired {}", instant(at)));
                vec![key.kid.clone(), key.algorithm.clone(), instant(key.created), state]
            };
            say(&table(
                &["ID", "ALGORITHM", "CREATED", "STATE"],
                &signing_keys::list(&mut admin)?.iter().map(cells).collect::<Vec<_>>(),
            ))
        }
    }
}

/// Reads a key file that the user created.
fn read_key(file: &Path) -> Result<SealingKey, CommandError> {
    let refused = |why: &dyn std::fmt::Display| CommandError::Refused(format!("{}: {why}", file.display()));
    let bytes = zeroize::Zeroizing::new(std::fs::read(file).map_err(|error| refused(&error))?);
    SealingKey::parse(&bytes).map_err(|why| refused(&why))
}
