// What a conversion did, for people and programs: DST/crossdock.json.
#pragma once

#include "core/convert/open_model.h"
#include "core/plugin/plan.h"

#include <string>
#include <vector>

namespace crossdock::convert {

struct FileEntry {
  std::string path;
  uint64_t size = 0;
  std::string digest;
};

struct Report {
  const OpenModel* model = nullptr;
  const manifest::Manifest* target = nullptr;  // the model as the writer saw it
  const plugin::Plugin* writer = nullptr;
  const plugin::Plan* plan = nullptr;
  std::vector<std::pair<std::string, std::string>> options;  // the writer's, as checked
  std::vector<std::string> notes;
  std::vector<FileEntry> files;
  std::vector<std::string> tensor_digests;  // by index
  std::vector<std::pair<std::string, double>> seconds;
};

std::string to_json(const Report& report);

}  // namespace crossdock::convert
