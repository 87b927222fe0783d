// config.json of a model whose files hold none, from their metadata, by a layout's entries (rules.proto, ConfigEntry).
#pragma once

#include "core/layout/layout.h"
#include "core/layout/variables.h"

namespace crossdock::layout {

struct Config {
  manifest::Value value;             // unset when the layout has no entries
  std::string text;                  // the same as JSON
  std::vector<std::string> missing;  // fields that the entries which apply have no value for
};

Result<Config> make_config(const rules::v1::Layout& layout, const Variables& variables, const manifest::Manifest& m,
                           const ReadTensor& read);

}  // namespace crossdock::layout
