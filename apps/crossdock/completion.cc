// SPDX-License-Identifier: Apache-2.0

// `crossdock completion`: what shells complete. Their scripts ask the command itself (`crossdock
// completion words ...`), so they know the plugins that are installed, and the options of the
// format after --to.
#include "apps/crossdock/log.h"
#include "apps/crossdock/verb.h"
#include "apps/crossdock/verbs.h"
#include "core/base/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

namespace crossdock::app {

namespace {

using Words = std::vector<std::string>;

constexpr char kHelp[] =
    R"(crossdock completion bash|zsh|fish: prints the script that completes crossdock's words

bash:  crossdock completion bash > ~/.local/share/bash-completion/completions/crossdock
zsh:   crossdock completion zsh > _crossdock, in a folder of $fpath
fish:  crossdock completion fish > ~/.config/fish/completions/crossdock.fish

A package's installation has put them where the shells look already.
)";

// Of `completion words`, a line each: a word, a tab and its help; ":files" or ":folders" where the
// shell's own names of files belong.
constexpr char kBash[] = R"(# Completes the words of crossdock. Made by `crossdock completion bash`.
_crossdock() {
  local word help
  COMPREPLY=()
  while IFS=$'\t' read -r word help; do
    case $word in
      :files) compopt -o default 2>/dev/null ;;
      :folders) compopt -o dirnames 2>/dev/null ;;
      *) COMPREPLY+=("$word") ;;
    esac
  done < <("${COMP_WORDS[0]}" completion words "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _crossdock crossdock
)";
constexpr char kZsh[] = R"(#compdef crossdock
# Completes the words of crossdock. Made by `crossdock completion zsh`.
_crossdock() {
  local line
  local -a words_and_help
  for line in "${(@f)$("${words[1]}" completion words "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
    case $line in
      :files) _files ;;
      :folders) _files -/ ;;
      ?*) words_and_help+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}") ;;
    esac
  done
  if (( $#words_and_help )); then _describe crossdock words_and_help; fi
}
if [[ $funcstack[1] == _crossdock ]]; then _crossdock "$@"; else compdef _crossdock crossdock; fi
)";
constexpr char kFish[] = R"(# Completes the words of crossdock. Made by `crossdock completion fish`.
function __crossdock_words
    set -l before (commandline -opc)
    set -l word (commandline -ct | string collect --allow-empty)
    for line in ($before[1] completion words $before[2..] "$word" 2>/dev/null)
        switch $line
            case :files
                __fish_complete_path "$word"
            case :folders
                __fish_complete_directories "$word" ''
            case '*'
                echo $line
        end
    end
end
complete -c crossdock -f -a '(__crossdock_words)'
)";

// Prints what begins as the word that is being written does.
struct Candidates {
  std::string begin;   // of the word
  std::string before;  // what stands in the same word before what is completed: "--to="

  void add(std::string_view word, std::string_view help = {}) const {
    if (word.starts_with(begin)) fmt::print("{}{}\t{}\n", before, word, help);
  }
};

void add_formats(const plugin::Registry& registry, bool readers, const Candidates& out) {
  for (const plugin::Plugin& p : registry.plugins()) {
    if (p.is_reader() == readers) out.add(p.format(), p.desc.summary);
  }
}

// "bf16|fp16|FILE" are two words, and files.
void add_values(const plugin::Registry& registry, const po::option_description& option,
                const Candidates& out) {
  const std::string& flag = option.long_name();
  if (flag == "to") return add_formats(registry, false, out);
  if (flag == "from" || flag == "from-b") {
    out.add("auto", "the format that the first bytes tell");
    return add_formats(registry, true, out);
  }
  const std::string name = value_of(option).name;
  for (size_t at = 0; at <= name.size();) {
    const size_t end = std::min(name.find('|', at), name.size());
    const std::string_view word = std::string_view(name).substr(at, end - at);
    if (word == "FILE" || word == "SRC") {
      fmt::print(":files\n");
    } else if (word == "DIR") {
      fmt::print(":folders\n");
    } else if (name.find('|') != std::string::npos &&
               word.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == word.npos) {
      out.add(word);
    }
    at = end + 1;
  }
}

const po::option_description* find(const std::vector<OptionGroup>& groups,
                                   const std::string& flag) {
  for (const OptionGroup& group : groups) {
    if (const auto* option = group.options->find_nothrow(flag, false)) return option;
  }
  return nullptr;
}

// Bash makes three words of --to=universal; others leave it one.
Words without_equals(const Words& words) {
  Words out;
  for (size_t i = 0; i < words.size(); ++i) {
    const bool is_equals = words[i] == "=" && !out.empty() && out.back().starts_with("--");
    if (!is_equals || i + 1 == words.size()) out.push_back(is_equals ? "" : words[i]);
  }
  return out;
}

void complete_of(const Verb& verb, const Words& words) {
  const Session session = open_session(words, 64 << 20);
  const plugin::Registry& registry = session.registry();
  std::vector<const plugin::Plugin*> writers;
  if (const auto* writer = registry.find_writer(peek(words, "--to", ""))) writers = {writer};
  const auto groups = verb.options ? verb.options(registry, writers) : std::vector<OptionGroup>();
  Candidates out{words.back(), ""};
  const size_t equals = out.begin.find('=');
  std::string flag = words.size() > 1 ? words[words.size() - 2] : "";
  if (out.begin.starts_with("--") && equals != std::string::npos) {
    flag = out.begin.substr(0, equals);
    out = {out.begin.substr(equals + 1), flag + "="};
  }
  if (flag.starts_with("--")) {
    const auto* option = find(groups, flag.substr(2));
    if (option && !value_of(*option).name.empty()) return add_values(registry, *option, out);
  }
  if (out.begin.starts_with("-")) {
    for (const OptionGroup& group : groups) {
      for (const auto& option : group.options->options())
        out.add("--" + option->long_name(), option->description());
    }
  } else if (&verb == &kPlugins) {
    for (const plugin::Plugin& p : registry.plugins()) out.add(p.id(), p.desc.summary);
  } else if (&verb == &kCompletion) {
    for (const char* shell : {"bash", "zsh", "fish"}) out.add(shell);
  } else {
    fmt::print(":files\n");
  }
}

// What may stand for the last of `words`, after "crossdock".
void complete(const Words& given) {
  Words words = without_equals(given);
  if (words.empty()) words = {""};
  if (words.size() == 1) {
    for (const Verb* verb : verbs()) Candidates{words[0], ""}.add(verb->name, verb->summary);
    for (const char* flag : {"--help", "--version"}) {
      if (words[0].starts_with("-")) Candidates{words[0], ""}.add(flag);
    }
    return;
  }
  const auto all = verbs();
  const auto verb =
      std::find_if(all.begin(), all.end(), [&](const Verb* v) { return v->name == words[0]; });
  if (verb != all.end()) complete_of(**verb, Words(words.begin() + 1, words.end()));
}

int run_verb(const Words& args) {
  const std::string what = args.empty() ? "" : args[0];
  if (what == "words") {
    complete(Words(args.begin() + 1, args.end()));
  } else if (what == "--help" || what == "-h") {
    fmt::print("{}", kHelp);
  } else if (args.size() == 1 && what == "bash") {
    fmt::print("{}", kBash);
  } else if (args.size() == 1 && what == "zsh") {
    fmt::print("{}", kZsh);
  } else if (args.size() == 1 && what == "fish") {
    fmt::print("{}", kFish);
  } else {
    return usage_error("expected bash, zsh or fish, and nothing else", "completion");
  }
  return kDone;
}

}  // namespace

constinit const Verb kCompletion{
    "completion", "SHELL",  "the script that completes words in bash, zsh or fish",
    kHelp,        run_verb, nullptr};

}  // namespace crossdock::app
