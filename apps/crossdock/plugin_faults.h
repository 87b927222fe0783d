// SPDX-License-Identifier: Apache-2.0

// What ends the process inside a plugin, or does not end there, leaves a sentence that says whose
// call it was.
#pragma once

namespace crossdock::app {

// What becomes of DST, for such a sentence: nothing is said of it before a conversion writes.
enum class Stage { kNothingWritten, kWriting, kPublished };
void set_stage(Stage stage);

// Once, before plugins are loaded: from now on a signal such as SIGSEGV, and exit(), in a plugin's
// call is told on stderr by the plugin's name. The process still ends as it would have.
void tell_of_plugin_faults();

// In the handler of the first SIGINT: some seconds later, and then now and again, which plugin's
// call is still being waited for. [async-signal-safe]
void tell_what_is_waited_for();

}  // namespace crossdock::app
