// SPDX-License-Identifier: Apache-2.0

// `crossdock man`: the manual page, of the texts and tables that --help prints.
#include "apps/crossdock/log.h"
#include "apps/crossdock/verb.h"
#include "apps/crossdock/verbs.h"
#include "core/base/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

namespace crossdock::app {

namespace {

// Text that roff takes as it is.
std::string plain(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
  }
  if (out.starts_with('.') || out.starts_with('\'')) out.insert(0, "\\&");
  return out;
}

// Paragraphs, of which those that are laid out by spaces keep their lines.
void print_text(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find("\n\n", at), text.size());
    const std::string_view paragraph = text.substr(at, end - at);
    const bool is_table = paragraph.find("   ") != paragraph.npos;
    fmt::print(".PP\n{}", is_table ? ".nf\n" : "");
    for (size_t line = 0; line < paragraph.size();) {
      const size_t line_end = std::min(paragraph.find('\n', line), paragraph.size());
      fmt::print("{}\n", plain(paragraph.substr(line, line_end - line)));
      line = line_end + 1;
    }
    if (is_table) fmt::print(".fi\n");
    for (at = end; at < text.size() && text[at] == '\n';) ++at;
  }
}

void print_group(const OptionGroup& group) {
  if (group.options->options().empty()) return;
  if (group.caption != "Options") fmt::print(".PP\n{}:\n", plain(group.caption));
  for (const auto& option : group.options->options()) {
    const Value value = value_of(*option);
    fmt::print(".TP\n\\fB\\-\\-{}\\fR", plain(option->long_name()));
    if (!value.name.empty()) fmt::print(" \\fI{}\\fR", plain(value.name));
    fmt::print("\n{}", plain(option->description()));
    if (!value.fallback.empty()) fmt::print(" (default {})", plain(value.fallback));
    fmt::print("\n");
  }
}

constexpr char kEnd[] = R"(.SH EXIT STATUS
.TP
0
done; of verify and diff: all is as it should be, or the same
.TP
1
failed, or not so
.TP
2
wrong use
.TP
130
cancelled
.SH ENVIRONMENT
.TP
\fBCROSSDOCK_PLUGIN_PATH\fR
folders of plugins, with a colon between two, which are looked through after those of \-\-plugin\-path and before the installed one
.TP
\fBHF_HUB_CACHE\fR, \fBHF_HOME\fR, \fBXDG_CACHE_HOME\fR
where the local Hugging Face cache is, as huggingface_hub has it
.SH FILES
.TP
\fIDST\fR/crossdock.json
the report: what was made of what, with the digest of every tensor and file
.TP
\fIDST\fR.partial
the work of a run that is not finished
)";

}  // namespace

Value value_of(const po::option_description& option) {
  const std::string text = option.format_parameter();
  const size_t begin = text.find(" (=");
  if (begin == std::string::npos) return {text, ""};
  return {text.substr(0, begin), text.substr(begin + 3, text.size() - begin - 4)};
}

int man(const std::vector<std::string>& args) {
  if (!args.empty()) return usage_error("expected nothing after man", "");
  const Session session = open_session({}, 64 << 20);
  std::vector<const plugin::Plugin*> writers;
  for (const plugin::Plugin& p : session.registry().plugins()) {
    if (!p.is_reader()) writers.push_back(&p);
  }
  fmt::print(".TH CROSSDOCK 1 \"\" \"crossdock {}\"\n.SH NAME\n", CROSSDOCK_VERSION);
  fmt::print("crossdock \\- converts model checkpoints between formats\n.SH SYNOPSIS\n.nf\n");
  for (const Verb* verb : verbs())
    fmt::print("\\fBcrossdock {}\\fR {}\n", verb->name, plain(verb->arguments));
  fmt::print(".fi\n.SH DESCRIPTION\n");
  print_text(
      "It moves a model's tensors from one checkpoint format to another in one pass and within a "
      "fixed budget of memory. The destination appears whole or not at all.");
  for (const Verb* verb : verbs()) {
    std::string title = cat("crossdock ", verb->name);
    for (char& c : title) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    fmt::print(".SH {}\n", title);
    print_text(verb->text);
    if (!verb->options) continue;
    for (const OptionGroup& group : verb->options(session.registry(), writers)) print_group(group);
  }
  fmt::print("{}", kEnd);
  return kDone;
}

}  // namespace crossdock::app
