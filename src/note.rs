//! Where the library notes what it does, for `urpc::trace`. Without that feature a note is nothing at all:
//! its operands are not even looked at.
//!
//! ```text
//! note!(Rest);                    an event of this processor
//! note!(Ring, binding);           … that concerns a peer
//! note!(Call, binding, id);       … and one of its calls
//! note!(let moment);              a moment to be remembered
//! note!(Donate at moment, peer);  what happened then, although it is certain only now
//! note!(on Worker(id));           from here on this thread is that processor
//! ```

#[cfg(feature = "trace")]
macro_rules! note {
    (let $moment:ident) => {
        let $moment = $crate::trace::record::moment();
    };
    (on $($processor:tt)+) => {
        $crate::trace::record::set_processor($crate::trace::Processor::$($processor)+)
    };
    ($what:ident at $moment:ident, $peer:expr) => {
        $crate::trace::record::note_at($moment, $crate::trace::What::$what, $peer)
    };
    ($what:ident) => {
        note!(@ $what, None, None)
    };
    ($what:ident, $peer:expr) => {
        note!(@ $what, Some($peer), None)
    };
    ($what:ident, $peer:expr, $call:expr) => {
        note!(@ $what, Some($peer), Some($call))
    };
    // Nothing of an event is put together unless it is to be recorded.
    (@ $what:ident, $peer:expr, $call:expr) => {
        if $crate::trace::record::is_on() {
            $crate::trace::record::note($crate::trace::What::$what, $peer, $call);
        }
    };
}

#[cfg(not(feature = "trace"))]
macro_rules! note {
    ($($operands:tt)*) => {};
}

pub(crate) use note;
