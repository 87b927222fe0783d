// The variables of a layout's texts (rules.proto, Layout): metadata of the source, and names of `let`.
#pragma once

#include <crossdock/rules.pb.h>
#include <crossdock/manifest_wire.hpp>

#include <string>
#include <vector>

namespace crossdock::layout {

// Whether all conditions hold for the source's metadata.
bool all_hold(const google::protobuf::RepeatedPtrField<rules::v1::Condition>& conditions,
              const std::vector<manifest::KeyValue>& metadata);

class Variables {
 public:
  // Both outlive it.
  Variables(const std::vector<manifest::KeyValue>& metadata, const rules::v1::Layout& layout)
      : metadata_(metadata), lets_(layout.let()) {}

  // The first of the keys of "a|b" that there is; nullptr: none of them.
  const manifest::Value* find(const std::string& keys) const;
  // A number such as "3*{a|b}/{c}+2"; of a value that is a list, the element `layer`. Errors: an unbound variable, a
  // value that is no integer of 0 or more, a division that leaves a rest.
  Result<uint64_t> number(const std::string& text, uint64_t layer = 0) const;

 private:
  using Lets = std::vector<Result<uint64_t>>;  // the first ones of the layout; each knows those before it
  Result<uint64_t> sum(const std::string& text, uint64_t layer, const Lets& lets) const;
  Result<uint64_t> product(const std::string& text, uint64_t layer, const Lets& lets) const;
  Result<uint64_t> value(const std::string& name, uint64_t layer, const Lets& lets) const;
  const std::vector<manifest::KeyValue>& metadata_;
  const google::protobuf::RepeatedPtrField<rules::v1::Variable>& lets_;
};

}  // namespace crossdock::layout
