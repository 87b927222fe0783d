// SPDX-License-Identifier: Apache-2.0

// Result<T>: how everything that input, disk or a plugin can make fail says so.
//
// The spelling is std::expected's (has_value, operator*, error), which C++20 lacks. Exceptions are
// never control flow: they are caught in two places only, the SDK's guard() and the host's worker
// pool.
//
//   Result<uint64_t> size = source.size();
//   if (!size) return std::move(size).error();
//   XD_TRY(writer.flush());                 // returns the error of a Result<void>
//   XD_TRY_SET(auto bytes, source.read());  // declares `bytes`, or returns the error
//
// A message says what was expected, what was found, where, and what to try. Each layer adds its
// place once, in front:
//   return std::move(e).in("tensor \"h.3.weight\"");
#pragma once

#include <crossdock/plugin.h>

#include <cassert>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

namespace crossdock {

struct [[nodiscard]] Error {
  xd_status code = XD_INTERNAL;
  std::string message;
  bool held_by_host = false;  // in a plugin: a host call failed and its message is in the error
                              // slot; ours are places only
  bool names_plugin = false;  // in the host: the message says whose call failed

  // Puts the place in front: "place: message".
  Error in(std::string_view place) && {
    message.insert(0, message.empty() ? std::string(place) : std::string(place) + ": ");
    return std::move(*this);
  }
};

// Adjacent pieces of text, joined; the SDK depends on no formatting library.
template <class... Parts>
std::string cat(const Parts&... parts) {
  std::string out;
  const auto add = [&out](const auto& part) {
    using Part = std::decay_t<decltype(part)>;
    if constexpr (std::is_arithmetic_v<Part> && !std::is_same_v<Part, char>) {
      out += std::to_string(part);
    } else {
      out += part;
    }
  };
  (add(parts), ...);
  return out;
}

inline Error invalid(std::string message) { return {XD_INVALID_ARGUMENT, std::move(message)}; }
inline Error corrupt(std::string message) { return {XD_CORRUPT, std::move(message)}; }
inline Error unsupported(std::string message) { return {XD_UNSUPPORTED_DATA, std::move(message)}; }

template <class T>
class [[nodiscard]] Result {
 public:
  using value_type = T;

  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool has_value() const { return state_.index() == 0; }
  explicit operator bool() const { return has_value(); }

  T& operator*() & { return value(*this); }
  const T& operator*() const& { return value(*this); }
  T&& operator*() && { return std::move(value(*this)); }
  T* operator->() { return &value(*this); }
  const T* operator->() const { return &value(*this); }

  const Error& error() const& { return failure(*this); }
  Error&& error() && { return std::move(failure(*this)); }

 private:
  template <class Self>
  static auto& value(Self& self) {
    assert(self.has_value());
    return *std::get_if<0>(&self.state_);
  }
  template <class Self>
  static auto& failure(Self& self) {
    assert(!self.has_value());
    return *std::get_if<1>(&self.state_);
  }

  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  using value_type = void;

  Result() = default;
  Result(Error error) : error_(std::move(error)), failed_(true) {}

  bool has_value() const { return !failed_; }
  explicit operator bool() const { return has_value(); }
  const Error& error() const& { return error_; }
  Error&& error() && { return std::move(error_); }

 private:
  Error error_;
  bool failed_ = false;
};

}  // namespace crossdock

#define XD_TRY_CAT_(a, b) a##b
#define XD_TRY_NAME_(line) XD_TRY_CAT_(xd_result_, line)
#define XD_TRY(expression)                                                              \
  do {                                                                                  \
    if (auto xd_result = (expression); !xd_result) return std::move(xd_result).error(); \
  } while (false)
#define XD_TRY_SET(declaration, expression)                                      \
  auto XD_TRY_NAME_(__LINE__) = (expression);                                    \
  if (!XD_TRY_NAME_(__LINE__)) return std::move(XD_TRY_NAME_(__LINE__)).error(); \
  declaration = *std::move(XD_TRY_NAME_(__LINE__))
