// SPDX-License-Identifier: Apache-2.0
#include "core/convert/plan_text.h"

#include "core/base/json_writer.h"
#include "core/base/text.h"
#include "core/io/tree_digest.h"

#include <simdjson.h>
#include <boost/filesystem/operations.hpp>

#include <array>
#include <map>
#include <set>
#include <variant>

namespace crossdock::convert {

namespace {

using base::JsonWriter;
using simdjson::dom::element;

constexpr uint64_t kVersion = 1;

// Its version, and the values of its options. A file's path may be another on each machine, so its
// text counts.
void add_plugin(JsonWriter& json, const char* key, const plugin::Plugin& plugin,
                const plugin::CheckedOptions& options) {
  json.key(key).begin_object();
  json.member("id", plugin.id()).member("version", plugin.version());
  std::string values;
  for (const xd_option* const* option = options.table(); option && *option; ++option)
    values += cat((*option)->key, '=', (*option)->value, '\n');
  json.member("values", io::tree_digest_of(values)).end_object();
}

// As the user sees them: for words, not for the comparison.
void add_options(JsonWriter& json, const char* key, const plugin::CheckedOptions& options) {
  std::map<std::string, std::vector<std::string>> told;
  for (const auto& [name, value] : options.pairs()) told[name].push_back(value);
  json.key(key).begin_object();
  for (const auto& [name, list] : told) json.member(name, list);
  json.end_object();
}

// Files beside the tensors are told by their bytes, for copies of a cache have other times.
Result<std::string> digest_of_aux(Prepared& prepared, const manifest::AuxFile& file) {
  constexpr uint64_t kPiece = 1 << 20;
  const uint64_t size = prepared.source->aux_size(file);
  std::string piece(std::min(size, kPiece), '\0');
  io::TreeDigest digest(size);
  io::TreeDigest::Run run(digest, 0);
  for (uint64_t at = 0; at < size; at += piece.size()) {
    piece.resize(std::min(kPiece, size - at));
    const auto bytes = std::as_writable_bytes(std::span(piece));
    XD_TRY(prepared.source->read_aux(file, at, bytes));
    run.add(bytes);
  }
  run.hand_in();
  return digest.text();
}

Result<void> add_files(JsonWriter& json, Prepared& prepared) {
  const io::Input& input = prepared.source->input();
  json.key("files").begin_object();
  bool all_known = true;
  for (const auto& file : prepared.target.source.files) {
    json.key(file.name).begin_object().member("size", file.size);
    const io::InputEntry* entry = input.find(file.name);
    if (!file.digest.empty() || !entry) {
      json.member("digest", file.digest);
    } else {
      json.member("modified", entry->modified_ns);
      all_known = false;
    }
    json.end_object();
  }
  for (const auto& file : prepared.target.aux_files) {
    XD_TRY_SET(const std::string digest, digest_of_aux(prepared, file));
    json.key(file.name).begin_object().member("size", prepared.source->aux_size(file));
    json.member("digest", digest).end_object();
  }
  json.end_object();
  // A copy of another folder may have the same times.
  if (!all_known) json.member("folder", input.root().string());
  return {};
}

std::string digest_of_plan(const plugin::Plan& plan) {
  std::string text;
  for (const auto& object : plan.objects)
    text += cat("object ", object.size, ' ', object.flags, ' ', object.n_items, ' ', object.path,
                '\n');
  for (const auto& item : plan.items) {
    text += cat("item ", item.object, ' ', item.number, ' ', item.out_bytes);
    for (const auto& need : item.needs)
      text += cat(' ', need.tensor, ':', need.begin, '+', need.count);
    text += '\n';
  }
  for (const auto& [path, aux] : plan.aux) text += cat("file ", aux, ' ', path, '\n');
  for (const auto& [tensor, reason] : plan.excluded) text += cat("without ", tensor, '\n');
  return io::tree_digest_of(text);
}

Result<std::string> same_text(Prepared& prepared, const Planned& planned) {
  JsonWriter json;
  json.begin_object().member("crossdock", std::string(CROSSDOCK_VERSION));
  add_plugin(json, "reader", prepared.source->reader(), prepared.source->reader_options());
  add_plugin(json, "writer", *prepared.writer, prepared.options);
  XD_TRY(add_files(json, prepared));
  json.member("model", planned.model_digest).member("plan", digest_of_plan(planned.plan));
  json.end_object();
  return std::move(json).take();
}

// Of a list its members, of anything else but a text its JSON.
std::string text_of(element value) {
  std::string_view text;
  if (value.get(text) == simdjson::SUCCESS) return std::string(text);
  simdjson::dom::array list;
  if (value.get(list) != simdjson::SUCCESS) return simdjson::minify(value);
  std::string out;
  for (const element one : list) out += cat(out.empty() ? "" : " ", text_of(one));
  return out;
}

std::string at(element object, const char* pointer) {
  element value;
  return object.at_pointer(pointer).get(value) == simdjson::SUCCESS ? text_of(value) : "";
}

std::map<std::string, std::string> members(element object, const char* pointer) {
  std::map<std::string, std::string> out;
  simdjson::dom::object found;
  if (object.at_pointer(pointer).get(found) != simdjson::SUCCESS) return out;
  for (const auto field : found) out[std::string(field.key)] = text_of(field.value);
  return out;
}

std::string was_and_is(const std::string& what, const std::string& then, const std::string& now) {
  const auto shown = [](const std::string& value) {
    constexpr size_t kMax = 200;
    if (value.empty()) return std::string("not there");
    return base::printable(value.size() > kMax ? value.substr(0, kMax) + "..." : value);
  };
  return cat(base::printable(what), " was ", shown(then), ", and is ", shown(now), " now");
}

// The first member that differs, named `prefix` and its key.
std::string first_difference(element theirs, element ours, const char* pointer,
                             const std::string& prefix) {
  auto then = members(theirs, pointer), now = members(ours, pointer);
  std::set<std::string> names;
  for (const auto& [name, _] : then) names.insert(name);
  for (const auto& [name, _] : now) names.insert(name);
  for (const std::string& name : names) {
    if (then[name] != now[name]) return was_and_is(prefix + name, then[name], now[name]);
  }
  return "";
}

// As it can be named again from any folder.
std::string named_source(const io::Input& input) {
  boost::system::error_code ec;
  const bool is_index = !input.named().empty() && io::fs::is_directory(input.root(), ec);
  return (is_index ? input.root() / input.named() : input.root()).string();
}

}  // namespace

Result<std::string> plan_text(const Session& session, Prepared& prepared, const Planned& planned) {
  XD_TRY_SET(const std::string same, same_text(prepared, planned));
  JsonWriter json;
  json.begin_object().member("crossdock plan", kVersion);
  json.member("id", io::tree_digest_of(same));
  json.member("source", named_source(prepared.source->input()));
  json.member("arguments", session.request.arguments);
  add_options(json, "reader_options", prepared.source->reader_options());
  add_options(json, "writer_options", prepared.options);
  json.end_object();
  std::string text = std::move(json).take();
  text.erase(text.rfind('\n', text.size() - 2));  // "\n}\n"
  return cat(text, ",\n  \"same\": ", same, "}\n");
}

Result<PlanText> parse_plan(const std::string& text) {
  simdjson::dom::parser parser;
  element root;
  uint64_t version = 0;
  const bool is_plan = parser.parse(text).get(root) == simdjson::SUCCESS &&
                       root["crossdock plan"].get(version) == simdjson::SUCCESS;
  if (!is_plan || version != kVersion)
    return unsupported("its plan is damaged, or of another version of crossdock");
  PlanText out{at(root, "/id"), at(root, "/source"), {}};
  simdjson::dom::array list;
  if (root["arguments"].get(list) == simdjson::SUCCESS) {
    for (const element one : list) out.arguments.push_back(text_of(one));
  }
  return out;
}

std::string plan_difference(const std::string& theirs, const std::string& ours) {
  const auto then_plan = parse_plan(theirs);
  if (!then_plan) return then_plan.error().message;
  simdjson::dom::parser then_parser, now_parser;
  element then, now;
  if (then_parser.parse(theirs).get(then) != simdjson::SUCCESS ||
      now_parser.parse(ours).get(now) != simdjson::SUCCESS)
    return "its plan is damaged, or of another version of crossdock";
  if (then_plan->id == at(now, "/id")) return "";
  struct Member {
    const char *pointer, *name;
  };
  for (const Member& m : {Member{"/same/crossdock", "the version of crossdock"},
                          Member{"/same/reader/id", "the reader"},
                          Member{"/same/reader/version", "the reader's version"},
                          Member{"/same/writer/id", "the writer"},
                          Member{"/same/writer/version", "the writer's version"},
                          Member{"/same/folder", "the source's folder"}}) {
    if (at(then, m.pointer) != at(now, m.pointer))
      return was_and_is(m.name, at(then, m.pointer), at(now, m.pointer));
  }
  for (const Member& m : {Member{"/same/files", "the source's "}, Member{"/reader_options", "--"},
                          Member{"/writer_options", "--"}}) {
    if (auto text = first_difference(then, now, m.pointer, m.name); !text.empty()) return text;
  }
  if (at(then, "/same/reader") != at(now, "/same/reader") ||
      at(then, "/same/writer") != at(now, "/same/writer"))
    return "the text of a file that an option names is another now";
  if (at(then, "/arguments") != at(now, "/arguments"))
    return was_and_is("the list of flags", at(then, "/arguments"), at(now, "/arguments"));
  return at(then, "/same/model") != at(now, "/same/model")
             ? "the model that source and rules make is another now"
             : "the files that the writer plans are others now";
}

}  // namespace crossdock::convert
