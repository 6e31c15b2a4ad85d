//! The window manager: lays out the text of each window as its parts come in.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_bytes::ByteBuf;

use crate::layout::Page;
use crate::process;
use crate::protocol::{Layout, Windows, WindowsServer};

/// The process.
pub(crate) fn run() -> urpc::Result<()> {
    process::serve(1, WindowsServer::new(Screen::default()))
}

#[derive(Default)]
struct Screen(Mutex<State>);

#[derive(Default)]
struct State {
    windows: HashMap<u32, Page>,
    last: u32,
}

impl Windows for Screen {
    async fn open(&self, width: u32, preview: u32) -> u32 {
        let mut state = self.state();
        while state.windows.contains_key(&state.last) {
            state.last = state.last.wrapping_add(1);
        }
        let window = state.last;
        state.last = state.last.wrapping_add(1);
        let page = Page::new(width as usize, preview as usize);
        state.windows.insert(window, page);
        window
    }

    async fn show(&self, window: u32, part: ByteBuf) -> bool {
        let mut state = self.state();
        let page = state.windows.get_mut(&window);
        page.map(|page| page.show(&part)).is_some()
    }

    async fn close(&self, window: u32) -> Option<Layout> {
        let page = self.state().windows.remove(&window)?;
        let whole = page.finish();
        Some(Layout {
            lines: whole.lines,
            words: whole.words,
            rows: whole.rows,
            invalid_at: whole.invalid_at,
            preview: whole.preview,
        })
    }
}

impl Screen {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
