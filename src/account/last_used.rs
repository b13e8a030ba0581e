//! The provider through which a browser last signed in, for the mark on its button. Only a device cookie leads to it, so
//! it says nothing about accounts to anyone else.

use std::time::Duration;

use super::accounts::Accounts;
use super::caller::Caller;
use super::limits::login_throttle::presented_device;
use crate::store;

/// How long a page waits for it; without an answer it has no mark.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// The provider's name. `None`: the browser has no device cookie (nothing is read then), it last signed in with a password
/// or a link, or the store does not respond soon enough.
pub async fn provider(accounts: &Accounts, caller: &Caller) -> Option<String> {
    let device = presented_device(caller)?;
    let read = async {
        let _permit = accounts.shared.store_permit(caller).await.ok()?;
        accounts.shared.store.run(move |db| store::devices::last_provider(db, &device)).await.ok()?
    };
    tokio::time::timeout(WAIT_MAX, read).await.ok()?
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::account::SignedIn;
    use crate::account::identity::rules::tests::{person, rules};
    use crate::account::identity::sign_in::{Finished, finish};
    use crate::account::provider::identity::Intent;
    use crate::account::testing::{GOOD, World, at};

    /// The browser after this sign-in.
    fn after(done: &SignedIn) -> Caller {
        Caller { device: Some(done.device.expose().to_owned()), ..at("192.0.2.1") }
    }

    async fn through(world: &World, caller: &Caller, name: &str, email: &str) -> SignedIn {
        let who =
            crate::account::provider::identity::ProviderIdentity { provider: name.to_owned(), ..person(email, email) };
        match finish(&world.accounts, caller, &rules(name), &who, &Intent::SignIn, false, None).await.unwrap() {
            Finished::SignedIn(done, _) => *done,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn the_last_way_to_sign_in_counts_in_each_browser_whatever_the_account() {
        let world = World::new();
        world.user("bob@example.com");
        let last = async |caller: &Caller| provider(&world.accounts, caller).await;
        let first = through(&world, &at("192.0.2.1"), "corp", "ada@example.com").await;
        let browser = after(&first);
        assert_eq!(last(&browser).await.as_deref(), Some("corp"));
        // another account, through another provider
        world.clock.advance(1);
        let second = through(&world, &browser, "hub", "grace@example.com").await;
        assert_eq!(second.device.expose(), first.device.expose());
        assert_eq!(last(&browser).await.as_deref(), Some("hub"));
        // a password ends the mark, and the next sign-in through a provider brings it back
        world.clock.advance(1);
        world.try_sign_in(&browser, "bob@example.com", GOOD).await.unwrap();
        assert_eq!(last(&browser).await, None);
        let elsewhere = through(&world, &at("192.0.2.2"), "hub", "grace@example.com").await;
        assert_eq!(last(&browser).await, None, "another browser");
        assert_eq!(last(&after(&elsewhere)).await.as_deref(), Some("hub"));
        // in the same second: which was the last is not known
        through(&world, &browser, "corp", "ada@example.com").await;
        assert_eq!(last(&browser).await, None);
        world.clock.advance(1);
        through(&world, &browser, "corp", "ada@example.com").await;
        assert_eq!(last(&browser).await.as_deref(), Some("corp"));
    }

    #[tokio::test]
    async fn a_forged_cookie_and_one_of_a_removed_account_lead_to_nothing() {
        let world = World::new();
        let done = through(&world, &at("192.0.2.1"), "corp", "ada@example.com").await;
        let forged = Caller { device: Some("A".repeat(43)), ..at("192.0.2.1") };
        assert_eq!(provider(&world.accounts, &forged).await, None);
        assert_eq!(provider(&world.accounts, &after(&done)).await.as_deref(), Some("corp"));
        world.admin().remove_user("ada@example.com").unwrap();
        assert_eq!(provider(&world.accounts, &after(&done)).await, None);
    }

    #[tokio::test]
    async fn a_page_does_not_wait_for_a_slow_store_and_without_a_cookie_not_at_all() {
        let world = World::new();
        let browser = after(&through(&world, &at("192.0.2.1"), "corp", "ada@example.com").await);
        // the store's thread is busy until `go` is dropped
        let (go, wait) = channel::<()>();
        let (accounts, busy) = (world.accounts.clone(), Duration::ZERO);
        let slow =
            tokio::spawn(async move { accounts.shared.store.run(move |_| Ok(wait.recv().is_err())).await.unwrap() });
        tokio::task::yield_now().await;
        let at_first_poll = async |caller: &Caller| tokio::time::timeout(busy, provider(&world.accounts, caller)).await;
        assert_eq!(at_first_poll(&at("192.0.2.1")).await, Ok(None), "nothing is awaited");
        assert!(at_first_poll(&browser).await.is_err(), "this one is read");
        assert_eq!(provider(&world.accounts, &browser).await, None, "left out");
        drop(go);
        assert!(slow.await.unwrap());
        assert_eq!(provider(&world.accounts, &browser).await.as_deref(), Some("corp"));
    }
}
