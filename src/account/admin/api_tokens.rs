//! API tokens as commands see them: made, listed, revoked.

use super::accounts::Admin;
use crate::account::api_token::manage::{TokenDetails, new_token, too_many};
use crate::account::errors::{Refused, shown};
use crate::secret::Secret;
use crate::store::{ApiTokenRow, AuditRow, Kept, UserRow};

impl Admin {
    /// API tokens that work, newest first; of one account, or all.
    pub fn tokens(&mut self, of: Option<&str>) -> Result<Vec<ApiTokenRow>, Refused> {
        let (id, _) = self.whose(of)?;
        Ok(self.db.api_tokens(id.as_deref(), self.clock.now())?)
    }

    /// Ends an API token.
    pub fn revoke_token(&mut self, id: &str) -> Result<(), Refused> {
        let event = AuditRow { detail: shown(id), ..self.event("token_revoked", None) };
        if self.db.end_api_token(id, None, self.clock.now(), &event)? {
            Ok(())
        } else {
            Err(Refused(format!("there is no token `{}` that works", shown(id))))
        }
    }

    /// Ends all API tokens of an account, or of everybody; returns how many.
    pub fn revoke_tokens(&mut self, of: Option<&str>) -> Result<usize, Refused> {
        let (id, user) = self.whose(of)?;
        let event = self.event("tokens_revoked", user.as_ref());
        Ok(self.db.end_api_tokens(id.as_deref(), self.clock.now(), &event)?)
    }

    fn whose(&mut self, of: Option<&str>) -> Result<(Option<String>, Option<UserRow>), Refused> {
        let user = of.map(|typed| self.user(typed)).transpose()?;
        Ok((user.as_ref().map(|user| user.id.clone()), user))
    }

    /// Makes a token and gives its id and the token itself, which is kept nowhere.
    pub fn create_token(&mut self, typed: &str, details: &TokenDetails) -> Result<(String, Secret), Refused> {
        let user = self.user(typed)?;
        let (new, token) = new_token(&user.id, details, self.now())?;
        let event = AuditRow { detail: new.id.clone(), ..self.event("token_created", Some(&user)) };
        match self.db.add_api_token(&new, None, &event)? {
            Kept::Yes => Ok((new.id, token)),
            Kept::TooMany => Err(too_many().into()),
            Kept::Already => Err(Refused("the token was made already".to_owned())),
            Kept::No => Err(Refused(format!("the account {} was removed meanwhile", user.email))),
        }
    }
}
