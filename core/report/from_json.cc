// SPDX-License-Identifier: Apache-2.0
#include "core/report/report.h"
#include "core/report/self_digest.h"

#include <simdjson.h>

#include <optional>
#include <utility>

namespace crossdock::report {

namespace {

using simdjson::dom::element;

// Reads the members of one object. The first that is missing or of another type is the error, and
// all behind it are left as they were.
class Members {
 public:
  Members(element object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) fail("expected an object");
  }

  Members& read(const char* key, std::string& out) {
    std::string_view text;
    if (const auto value = find(key, true); value && !check(key, value->get(text), "a text"))
      out = text;
    return *this;
  }
  // Keeps what `out` holds when there is no such member.
  Members& may_read(const char* key, std::string& out) {
    return find(key, false) ? read(key, out) : *this;
  }
  Members& read(const char* key, uint64_t& out) {
    if (const auto value = find(key, true)) check(key, value->get(out), "a whole number");
    return *this;
  }
  // `of` reads the member's value.
  template <class Of>
  Members& read_with(const char* key, Of of) {
    if (const auto value = find(key, true)) take(of(*value, path_of(key)));
    return *this;
  }
  // `each` reads one element of the list.
  template <class Each>
  Members& read_list(const char* key, Each each) {
    simdjson::dom::array list;
    const auto value = find(key, true);
    if (!value || check(key, value->get(list), "a list")) return *this;
    size_t i = 0;
    for (const element one : list) {
      if (error_) break;
      take(each(one, cat(path_of(key), "[", i++, "]")));
    }
    return *this;
  }
  // `each` reads one member of the object.
  template <class Each>
  Members& read_object(const char* key, Each each) {
    simdjson::dom::object object;
    const auto value = find(key, true);
    if (!value || check(key, value->get(object), "an object")) return *this;
    for (const auto field : object) {
      if (error_) break;
      take(each(std::string(field.key), field.value, cat(path_of(key), ".", field.key)));
    }
    return *this;
  }

  Result<void> done() const { return error_ ? Result<void>(*error_) : Result<void>(); }

 private:
  std::string path_of(const char* key) const { return cat(where_, where_.empty() ? "" : ".", key); }
  std::optional<element> find(const char* key, bool is_needed) {
    element value;
    if (error_) return std::nullopt;
    if (object_[key].get(value) == simdjson::SUCCESS) return value;
    if (is_needed) fail(cat("expected the member ", key));
    return std::nullopt;
  }
  bool check(const char* key, simdjson::error_code code, const char* what) {
    if (code != simdjson::SUCCESS) fail(cat("expected ", what, " as ", key));
    return code != simdjson::SUCCESS;
  }
  void fail(const std::string& text) {
    if (!error_) error_ = corrupt(cat(where_.empty() ? "report" : where_, ": ", text));
  }
  void take(Result<void> result) {
    if (!result && !error_) error_ = std::move(result).error();
  }

  element object_;
  std::string where_;
  std::optional<Error> error_;
};

Result<void> add_text(element value, const std::string& where, std::vector<std::string>& out) {
  std::string_view text;
  if (value.get(text) == simdjson::SUCCESS) {
    out.emplace_back(text);
    return {};
  }
  return corrupt(cat(where, ": expected a text"));
}

Result<void> read_option(element value, const std::string& where, std::vector<std::string>& out) {
  simdjson::dom::array list;
  if (value.get(list) != simdjson::SUCCESS) return add_text(value, where, out);
  for (const element one : list) XD_TRY(add_text(one, where, out));
  return {};
}

Result<void> read_plugin(element value, const std::string& where, Plugin& out) {
  return Members(value, where)
      .read("id", out.id)
      .read("version", out.version)
      .read_object("options",
                   [&](const std::string& key, element option, const std::string& at) {
                     return read_option(option, at, out.options[key]);
                   })
      .done();
}

Result<void> read_source(element value, Source& out) {
  return Members(value, "source")
      .read("given", out.given)
      .read("path", out.path)
      .read("format", out.format)
      .read_list("files",
                 [&](element file, const std::string& at) {
                   SourceFile& one = out.files.emplace_back();
                   return Members(file, at)
                       .read("name", one.name)
                       .read("size", one.size)
                       .may_read("hub_digest", one.hub_digest)
                       .may_read("rest_digest", one.rest_digest)
                       .done();
                 })
      .read_list("beside",
                 [&](element file, const std::string& at) {
                   SourceFile& one = out.beside.emplace_back();
                   return Members(file, at)
                       .read("name", one.name)
                       .read("size", one.size)
                       .read("rest_digest", one.rest_digest)
                       .done();
                 })
      .done();
}

Result<void> read_tensor(element value, const std::string& where, Tensor& out) {
  const bool is_excluded = value.at_key("excluded").error() == simdjson::SUCCESS;
  Members members(value, where);
  members.read("name", out.name);
  out.target = out.name;
  members.may_read("target", out.target)
      .read("role", out.role)
      .read("dtype", out.dtype)
      .read("digest", out.digest)
      .may_read("expression", out.expression)
      .may_read("excluded", out.excluded)
      .read_list("shape", [&](element size, const std::string& at) -> Result<void> {
        if (size.get(out.shape.emplace_back()) == simdjson::SUCCESS) return {};
        return corrupt(cat(at, ": expected a whole number"));
      });
  if (!is_excluded) {
    members.read_list("objects", [&](element path, const std::string& at) {
      return add_text(path, at, out.objects);
    });
  }
  return members.done();
}

Result<void> read_file(element value, const std::string& where, File& out) {
  return Members(value, where)
      .read("path", out.path)
      .read("size", out.size)
      .read("digest", out.digest)
      .done();
}

}  // namespace

Result<Report> from_json(std::string_view text) {
  simdjson::dom::parser parser;
  element root;
  if (const auto error = parser.parse(text.data(), text.size()).get(root))
    return corrupt(cat("expected JSON, found ", simdjson::error_message(error)));
  Report out;
  uint64_t schema = 0;
  XD_TRY(Members(root, "").read("crossdock", out.crossdock).read("schema", schema).done());
  if (schema != kSchema)
    return unsupported(cat("expected a report of schema ", kSchema, ", found one of ", schema,
                           ", which crossdock ", out.crossdock, " wrote"));
  if (!proves_itself(text))
    return corrupt(
        "expected a report that is as crossdock wrote it, found that its text does not fit the "
        "digest at its end: it was changed or damaged");
  XD_TRY(Members(root, "")
             .read("plan", out.plan)
             .read_list(
                 "arguments",
                 [&](element v, const std::string& at) { return add_text(v, at, out.arguments); })
             .read_with("source",
                        [&](element v, const std::string&) { return read_source(v, out.source); })
             .read_with(
                 "reader",
                 [&](element v, const std::string& at) { return read_plugin(v, at, out.reader); })
             .read_with(
                 "writer",
                 [&](element v, const std::string& at) { return read_plugin(v, at, out.writer); })
             .read_list("notes", [&](element v,
                                     const std::string& at) { return add_text(v, at, out.notes); })
             .read_list("tensors",
                        [&](element v, const std::string& at) {
                          return read_tensor(v, at, out.tensors.emplace_back());
                        })
             .read_list("files",
                        [&](element v, const std::string& at) {
                          return read_file(v, at, out.files.emplace_back());
                        })
             .read_object("timings",
                          [&](const std::string& name, element v, const std::string& at) {
                            if (name == "report_digest") return Result<void>();
                            auto& one = out.timings.emplace_back(name, 0);
                            if (v.get(one.second) == simdjson::SUCCESS) return Result<void>();
                            return Result<void>(corrupt(cat(at, ": expected a number")));
                          })
             .done());
  return out;
}

}  // namespace crossdock::report
