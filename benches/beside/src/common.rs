//! What the benches of the root package measure with.
#![allow(dead_code, unreachable_pub)]

#[path = "../../common/base.rs"]
pub mod base;
#[path = "../../common/child.rs"]
pub mod child;
#[path = "../../common/contest.rs"]
pub mod contest;
#[path = "../../common/pair.rs"]
pub mod pair;
#[path = "../../common/process.rs"]
pub mod process;
#[path = "../../common/report.rs"]
pub mod report;
#[path = "../../common/shared.rs"]
pub mod shared;
#[path = "../../common/tokio.rs"]
pub mod tokio;
