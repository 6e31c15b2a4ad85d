//! The attribute macros of urpc: [`macro@service`], [`macro@main`] and [`macro@test`].
//!
//! The crate `urpc` re-exports them, and expansions name nothing but `::core`, `::std`, and `::urpc`
//! or what the option `crate` says: whatever the user's module shadows, an expansion means the same.
//! What a macro cannot accept it reports at the offending tokens, all faults of an item at once, and
//! each report says what to write instead.
//!
//! ```text
//! tokens ── service.rs: what is a service ──> Service ── expand.rs: what it becomes ──> tokens
//!                └── signature.rs: types that can cross, and their text
//! tokens ── entry.rs: `main` and `test` ──> tokens
//!                └── options.rs: what stands in the macro's parentheses, here and above
//! ```

#![forbid(unsafe_code)]

mod entry;
mod expand;
mod options;
mod service;
mod signature;

use proc_macro2::TokenStream;

/// Makes a trait callable from another process.
///
/// ```text
/// #[urpc::service]
/// pub trait Calc {
///     /// The sum of both.
///     async fn add(&self, a: i64, b: i64) -> i64;
///     async fn div(&self, a: i64, b: i64) -> Result<i64, DivError>;
/// }
/// ```
///
/// gives three things, all with the trait's visibility:
///
/// - **`Calc`**, the trait itself, with the supertraits `Send + Sync + 'static` added. Each method
///   becomes `fn add(&self, ..) -> impl Future<Output = i64> + Send`; an implementation writes
///   plain `async fn`. Methods may have default bodies.
/// - **`CalcServer<S>`**, for an `S: Calc`: `CalcServer::new(Sums)` goes to `urpc::serve("calc")
///   .add(..)`. All calls share the one `S`.
/// - **`CalcClient`**, with the same methods, each of which returns a lazy `urpc::Call`. It comes
///   from `CalcClient::connect(name).await` or `CalcClient::on(&peer)`; clones share the channel.
///   `check` says whether the server's signatures agree with this trait's, `peer` gives the peer.
///
/// Each method is a procedure `"Calc.add"` with the signature `"Calc.add(i64, i64) -> i64"`, which
/// client and server compare when they bind. Parameter names are no part of it, and neither are
/// the fields inside user-defined types.
///
/// # Options
///
/// `#[urpc::service(name = "acme.Calc")]` replaces the prefix `Calc`.
///
/// `crate = path` says where the crate urpc is if that is not `::urpc`, because `Cargo.toml` calls
/// it something else or another crate re-exports it:
///
/// ```text
/// #[rpc::service(crate = rpc)] // rpc = { package = "urpc", .. }
/// trait Calc { .. }
///
/// #[facade::urpc::main(crate = facade::urpc)]
/// async fn main() { .. }
/// ```
///
/// # What a method looks like
///
/// `async fn name(&self, argument: Type, ..) -> Type`, with at most 16 arguments. Arguments
/// implement serde's `Serialize` and `DeserializeOwned`, and so does the result: they are owned,
/// and there are no generics, for both processes must agree on every type. A method that exists
/// only under a `#[cfg]` has the attribute on the method, not on its parameters.
///
/// # What crosses
///
/// Arguments and results cross in postcard's format, which does not describe itself: a value is
/// decoded by whoever knows its type. Plain structs and enums can cross. What serde decodes by
/// looking at what comes next cannot: `untagged`, `tag = ".."`, `flatten`, `serde_json::Value`; nor
/// can a struct that leaves fields out (`skip_serializing_if`).
///
/// A `Vec<u8>` is encoded byte by byte. As a `serde_bytes::ByteBuf`, or with
/// `#[serde(with = "serde_bytes")]` on a field, bytes are copied whole: many times as fast, if there
/// are many.
///
/// # Caveats
///
/// - The trait is not dyn-compatible, for its methods return `impl Future`: there is no `dyn Calc`.
/// - A server has each procedure once. Each of several instances of one trait needs a server with a
///   name of its own, or a trait of its own with another `name`; or an argument says which is meant.
/// - What is generated allows `dead_code` and clippy's lints: a crate can deny these, not forbid them.
#[proc_macro_attribute]
pub fn service(
    args: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    let item = TokenStream::from(item);
    let tokens = match service::Service::parse(args.into(), item.clone()) {
        Ok(service) => expand::expand(&service),
        // The trait goes along as written, so that those who implement just that hear nothing more.
        Err(error) => [error.to_compile_error(), item].into_iter().collect(),
    };
    tokens.into()
}

/// Runs an async `main` in a urpc runtime.
///
/// ```text
/// #[urpc::main]
/// async fn main() -> urpc::Result<()> {
///     let calc = CalcClient::connect("calc").await?;
///     println!("{}", calc.add(2, 3).await?);
///     Ok(())
/// }
/// ```
///
/// `#[urpc::main(processors = 0)]` sets how many processors the process has of its own: with 0 it
/// runs on those of its callers (§3.1). Without the option the runtime decides. The value may be
/// any expression of type `usize`. `crate = path` is the option of [`macro@service`].
#[proc_macro_attribute]
pub fn main(
    args: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    entry::expand(entry::Entry::Main, args.into(), item.into()).into()
}

/// Makes an async function a test that runs in a urpc runtime.
///
/// ```text
/// #[urpc::test(processors = 2)]
/// async fn a_sum_crosses_the_channel() -> urpc::Result<()> {
///     let calc = CalcClient::connect("calc").await?;
///     assert_eq!(calc.add(2, 3).await?, 5);
///     Ok(())
/// }
/// ```
///
/// The options `processors = N` and `crate = path` are those of [`macro@main`]. `#[should_panic]`
/// and `#[ignore]` keep their meaning.
#[proc_macro_attribute]
pub fn test(
    args: proc_macro::TokenStream,
    item: proc_macro::TokenStream,
) -> proc_macro::TokenStream {
    entry::expand(entry::Entry::Test, args.into(), item.into()).into()
}
