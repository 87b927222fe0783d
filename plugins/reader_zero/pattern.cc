// SPDX-License-Identifier: Apache-2.0
#include "plugins/reader_zero/pattern.h"

#include "plugins/common/quote.h"

#include <algorithm>
#include <charconv>
#include <optional>

namespace crossdock::reader_zero {

namespace {

constexpr size_t kMaxPattern = 4096, kMaxStates = 20'000, kMaxDepth = 32;
constexpr uint64_t kMaxRepeats = 1000;

}  // namespace

// Thompson's construction: a part of a pattern is built in front of the states that follow it, so
// parts are parsed first, as a tree, and built from the end.
class PatternParser {
 public:
  PatternParser(std::string_view text, Pattern& out) : left_(text), out_(out) {}

  Result<void> run() {
    XD_TRY_SET(const Node all, alternatives(0));
    if (!left_.empty()) return unknown("a ')' without a '('");
    const size_t match = push({Pattern::State::Kind::kMatch});
    XD_TRY_SET(out_.start_, build(all, match));
    if (is_plain_ && ends_) {
      out_.is_literal_ = true;
      out_.literal_ = literal_;
      out_.states_.clear();
    }
    return {};
  }

 private:
  using Kind = Pattern::State::Kind;
  // Of alternatives each is a sequence; of a sequence each is repeated `least` to `most` times.
  struct Node {
    enum class Kind { kBytes, kEnd, kSequence, kAlternatives } kind;
    Pattern::Bytes bytes = {};
    std::vector<Node> nodes = {};
    uint64_t least = 1;
    std::optional<uint64_t> most = 1;
  };

  static Error unknown(std::string_view what) {
    return unsupported(
        cat("expected a pattern of literals, classes, groups and repeats, found ", what));
  }
  char take() {
    const char c = left_.front();
    left_.remove_prefix(1);
    return c;
  }
  bool skip(std::string_view literal) {
    if (!left_.starts_with(literal)) return false;
    left_.remove_prefix(literal.size());
    return true;
  }

  Result<Node> alternatives(size_t depth) {
    if (depth > kMaxDepth) return unknown("groups in groups, too deep");
    Node out{Node::Kind::kAlternatives};
    do {
      XD_TRY_SET(out.nodes.emplace_back(), sequence(depth));
      if (out.nodes.size() > 1) is_plain_ = false;
    } while (skip("|"));
    return out;
  }

  Result<Node> sequence(size_t depth) {
    Node out{Node::Kind::kSequence};
    while (!left_.empty() && left_.front() != '|' && left_.front() != ')') {
      if (skip("^")) {
        // re.match begins at the name's begin, so there it says nothing.
        if (depth > 0 || !out.nodes.empty()) return unknown("a '^' that is not at its begin");
        continue;
      }
      if (skip("$")) {
        out.nodes.push_back({Node::Kind::kEnd});
        ends_ = left_.empty();
        continue;
      }
      XD_TRY_SET(Node one, atom(depth));
      XD_TRY(repeat(one));
      out.nodes.push_back(std::move(one));
    }
    return out;
  }

  Result<Node> atom(size_t depth) {
    Node out{Node::Kind::kBytes};
    if (skip("(")) {
      is_plain_ = false;
      if (left_.starts_with("?") && !skip("?:")) return unknown("a group with '(?'");
      XD_TRY_SET(out, alternatives(depth + 1));
      if (!skip(")")) return unknown("a '(' without a ')'");
      return out;
    }
    if (skip("[")) {
      is_plain_ = false;
      XD_TRY_SET(out.bytes, set());
      return out;
    }
    const char c = take();
    if (c == '\\') {
      XD_TRY_SET(out.bytes, escape());
    } else if (c == '.') {
      is_plain_ = false;
      out.bytes.set();
      out.bytes.reset('\n');
    } else if (c == '*' || c == '+' || c == '?') {
      return unknown(cat("a '", c, "' after nothing"));
    } else {
      out.bytes.set(static_cast<uint8_t>(c));
      literal_ += c;
    }
    return out;
  }

  // Behind a backslash.
  Result<Pattern::Bytes> escape() {
    if (left_.empty()) return unknown("a '\\' at its end");
    const char c = take();
    Pattern::Bytes out;
    const auto add = [&](char first, char last) {
      for (int b = first; b <= last; ++b) out.set(static_cast<size_t>(b));
    };
    const char lower = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    const bool is_letter = lower >= 'a' && lower <= 'z', is_digit = c >= '0' && c <= '9';
    if (!is_letter && !is_digit) {
      out.set(static_cast<uint8_t>(c));
      literal_ += c;
      return out;
    }
    is_plain_ = false;
    if (lower == 'd' || lower == 'w') add('0', '9');
    if (lower == 'w') {
      add('a', 'z');
      add('A', 'Z');
      out.set('_');
    }
    if (lower == 's') {
      add('\t', '\r');
      out.set(' ');
    }
    if (out.none()) return unknown(cat("'\\", c, "'"));
    return c == lower ? out : ~out;
  }

  // Behind a '['.
  Result<Pattern::Bytes> set() {
    Pattern::Bytes out;
    const bool is_not = skip("^");
    for (bool is_first = true;; is_first = false) {
      if (left_.empty()) return unknown("a '[' without a ']'");
      if (!is_first && skip("]")) return is_not ? ~out : out;
      const char c = take();
      if (c == '\\') {
        XD_TRY_SET(const auto bytes, escape());
        out |= bytes;
        continue;
      }
      auto last = static_cast<uint8_t>(c);
      if (left_.size() > 1 && left_[0] == '-' && left_[1] != ']') {
        take();
        last = static_cast<uint8_t>(take());
        if (last == '\\' || last < static_cast<uint8_t>(c)) return unknown("a range in '[]'");
      }
      for (int b = static_cast<uint8_t>(c); b <= last; ++b) out.set(static_cast<size_t>(b));
    }
  }

  Result<void> repeat(Node& node) {
    if (left_.empty()) return {};
    if (skip("*")) {
      node.least = 0;
      node.most.reset();
    } else if (skip("+")) {
      node.most.reset();
    } else if (skip("?")) {
      node.least = 0;
    } else if (skip("{")) {
      XD_TRY(numbers(node));
    } else {
      return {};
    }
    is_plain_ = false;
    skip("?");  // how much is taken does not change whether there is a match
    if (!left_.empty() && std::string_view("*+{").find(left_.front()) != std::string_view::npos)
      return unknown("a repeat of a repeat");
    return {};
  }

  Result<void> numbers(Node& node) {
    const auto number = [&](uint64_t& out) {
      const char* const end = left_.data() + std::min<size_t>(left_.size(), 4);
      const auto [after, error] = std::from_chars(left_.data(), end, out);
      left_.remove_prefix(static_cast<size_t>(after - left_.data()));
      return error == std::errc();
    };
    uint64_t n = 0;
    const bool has_least = number(n);
    node.least = has_least ? n : 0;
    node.most = node.least;
    if (skip(",")) {
      if (number(n)) {
        node.most = n;
      } else {
        node.most.reset();
      }
    } else if (!has_least) {
      return unknown("a '{' without numbers");
    }
    const uint64_t most = node.most.value_or(node.least);
    if (!skip("}") || most < node.least || most > kMaxRepeats)
      return unknown("a '{' of other numbers");
    return {};
  }

  size_t push(Pattern::State state) {
    out_.states_.push_back(state);
    return out_.states_.size() - 1;
  }

  // The state at which `node` begins, with `next` behind it.
  Result<size_t> build(const Node& node, size_t next) {
    if (node.most.value_or(1) > 0 && out_.states_.size() > kMaxStates)
      return unknown("a longer one");
    size_t at = next;
    if (!node.most) {
      const size_t loop = push({Kind::kSplit, {}, 0, next});
      XD_TRY_SET(out_.states_[loop].next, build_once(node, loop));
      at = loop;
    } else {
      for (uint64_t i = node.least; i < *node.most; ++i) {
        XD_TRY_SET(const size_t once, build_once(node, at));
        at = push({Kind::kSplit, {}, once, next});
      }
    }
    for (uint64_t i = 0; i < node.least; ++i) {
      XD_TRY_SET(at, build_once(node, at));
    }
    return at;
  }

  Result<size_t> build_once(const Node& node, size_t next) {
    if (out_.states_.size() > kMaxStates) return unknown("a longer one");
    switch (node.kind) {
      case Node::Kind::kBytes:
        return push({Kind::kBytes, node.bytes, next, 0});
      case Node::Kind::kEnd:
        return push({Kind::kEnd, {}, next, 0});
      case Node::Kind::kSequence:
        for (size_t i = node.nodes.size(); i-- > 0;) {
          XD_TRY_SET(next, build(node.nodes[i], next));
        }
        return next;
      case Node::Kind::kAlternatives:
        break;
    }
    XD_TRY_SET(size_t at, build(node.nodes.back(), next));
    for (size_t i = node.nodes.size() - 1; i-- > 0;) {
      XD_TRY_SET(const size_t first, build(node.nodes[i], next));
      at = push({Kind::kSplit, {}, first, at});
    }
    return at;
  }

  std::string_view left_;
  Pattern& out_;
  bool is_plain_ = true, ends_ = false;
  std::string literal_;
};

Result<Pattern> Pattern::compile(std::string_view text) {
  Pattern out;
  out.text_ = text;
  auto done = text.size() > kMaxPattern
                  ? Result<void>(unsupported(cat("expected a pattern of at most ", kMaxPattern,
                                                 " bytes, found ", text.size())))
                  : PatternParser(text, out).run();
  if (!done) return std::move(done).error().in(cat("pattern ", common::in_quotes(text)));
  return out;
}

// All states that the name's bytes so far may have led to.
bool Pattern::matches(std::string_view name) const {
  if (is_literal_ && name.starts_with(literal_)) {
    name.remove_prefix(literal_.size());
    return name.empty() || name == "\n";  // which '$' may be in front of
  }
  if (is_literal_) return false;
  std::vector<size_t> now, then, open;
  std::vector<size_t> seen(states_.size(), SIZE_MAX);  // by state: at which byte
  for (size_t i = 0;; ++i) {
    open.assign(now.rbegin(), now.rend());
    if (i == 0) open = {start_};
    then.clear();
    while (!open.empty()) {
      const size_t s = open.back();
      open.pop_back();
      if (std::exchange(seen[s], i) == i) continue;
      const State& state = states_[s];
      switch (state.kind) {
        case State::Kind::kMatch:
          return true;
        case State::Kind::kEnd:
          // As in Python also in front of a line's end that is the last byte.
          if (i == name.size() || (i + 1 == name.size() && name[i] == '\n'))
            open.push_back(state.next);
          break;
        case State::Kind::kSplit:
          open.push_back(state.other);
          open.push_back(state.next);
          break;
        case State::Kind::kBytes:
          if (i < name.size() && state.bytes[static_cast<uint8_t>(name[i])])
            then.push_back(state.next);
          break;
      }
    }
    if (then.empty() || i == name.size()) return false;
    now = then;
  }
}

}  // namespace crossdock::reader_zero
