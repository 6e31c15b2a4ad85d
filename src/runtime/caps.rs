//! What a runtime lets its peers make it hold: a limit for everything, each with its default and its reason.

use super::Builder;

/// What peers may make this process hold (the default in brackets). What goes beyond is refused at once, with an
/// error that says that nothing has run: [`CallErrorKind::Overloaded`](crate::CallErrorKind::Overloaded) or
/// [`ErrorKind::Overloaded`](crate::ErrorKind::Overloaded).
impl Builder {
    /// Channels that servers of this runtime accept, in all \[4,096\]. Each takes two descriptors and some 200 KiB,
    /// and a channel more than there are descriptors for (RLIMIT_NOFILE when the runtime is built) is refused, too.
    pub fn max_clients(mut self, n: usize) -> Self {
        self.config.caps.clients = n;
        self
    }

    /// Connections whose handshake is not finished, in all \[256\]. One that says its hello at once is never among
    /// them; if there are too many, the client that has most of them loses its oldest.
    pub fn max_unbound(mut self, n: usize) -> Self {
        self.config.caps.unbound = n;
        self
    }

    /// Handlers of peers' calls that wait for something, in all \[65,536\]. A call that comes while there are so
    /// many is not begun.
    pub fn max_serving(mut self, n: usize) -> Self {
        self.config.caps.serving = n;
        self
    }

    /// Bytes of peers' large calls, in all, from their first piece to their answer \[1 GiB\], and of answers that they
    /// have not read. A call with more than is left is not begun, and its bytes are not kept; one whose answer has
    /// more ends as [`Overloaded`](crate::CallErrorKind::Overloaded), and has run. (Small ones, of up to 48 bytes, are
    /// bounded by [`max_calls`](Self::max_calls).)
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.config.caps.bytes = bytes;
        self
    }

    /// How much of each of these limits any one client may use, in percent \[50\], so that it leaves something to
    /// the others. A client is a process, or all processes of another user.
    pub fn client_share(mut self, percent: u8) -> Self {
        self.config.caps.share = percent.min(100);
        self
    }

    /// Calls that one side of a channel may have outstanding, up to 32,768 \[1,024\]; the smaller number of the two
    /// sides counts. Callers beyond it wait at home, before anything is sent.
    pub fn max_calls(mut self, n: u32) -> Self {
        self.config.caps.calls = n.clamp(1, MOST_CALLS);
        self
    }

    /// Bytes of one call's encoded arguments, or of its reply \[4 MiB\]; the smaller number of the two sides counts.
    pub fn max_payload(mut self, bytes: u32) -> Self {
        self.config.caps.payload = bytes;
        self
    }

    /// Bytes of large messages that are under way or not decoded yet on one channel, each way \[8 MiB\]. Never less
    /// than [`max_payload`](Self::max_payload); the smaller number of the two sides counts. Callers beyond it wait
    /// at home.
    pub fn max_window(mut self, bytes: u64) -> Self {
        self.config.caps.window = bytes;
        self
    }

    /// How deep values of arguments and replies may lie in one another, lists in lists \[128\]: decoding takes stack
    /// for each level, at most some kilobytes. A list of structs is two levels.
    pub fn max_nesting(mut self, levels: u32) -> Self {
        self.config.caps.nesting = levels;
        self
    }

    /// Whether to keep other processes of the same user from reading and writing this one's memory through `/proc`,
    /// from debugging it, and from getting a core dump of it (`PR_SET_DUMPABLE`); the default is no. It is said of
    /// the whole process, from [`build`](Self::build) on, until that executes another program. Files in its `/proc`
    /// belong to root then. Without it, processes of one user that do not trust each other can do to each other what
    /// no channel would let them.
    pub fn undumpable(mut self, undumpable: bool) -> Self {
        self.config.undumpable = undumpable;
        self
    }
}

/// An id has 16 bits for the place of its call.
const MOST_CALLS: u32 = 1 << 15;
