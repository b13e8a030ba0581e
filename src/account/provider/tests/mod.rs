//! The protocol against a provider of the tests' own, over real sockets: honest by default, and hostile in one step at
//! a time. Each refusal has its honest twin in `an_honest_provider_signs_people_in`.

mod answers;
mod id_tokens;
mod kinds;
mod limits;
mod op;
mod outages;
