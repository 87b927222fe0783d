// SPDX-License-Identifier: Apache-2.0

// The whole plugin against a host in memory, its files read back by the reader of torch's own.
#include <crossdock/plugin.hpp>

#include <algorithm>
#include <string>
#include <vector>

#include "plugins/common/quote.h"
#include "plugins/torch/read/torch_file.h"
#include "plugins/writer_dcp/items.h"
#include "plugins/writer_dcp/metadata.h"
#include "tests/support/plugin_checks.h"

using namespace crossdock;
using namespace crossdock::writer_dcp;
using manifest::DType;
using manifest::Manifest;
using manifest::Role;
using test::Files;
using test::has;
using test::MemoryHost;

namespace {

std::string counting(size_t n) {
  std::string out;
  for (size_t i = 0; i < n; ++i) out += static_cast<char>(i * 37 + 11);
  return out;
}

// A model made of one tensor after another, as the core hands it to a writer: with roles.
struct Job {
  MemoryHost host;
  Manifest model;

  manifest::Tensor& add(const std::string& name, DType dtype, std::vector<uint64_t> shape,
                        Role role = Role::kParameter) {
    manifest::Tensor& tensor = model.tensors.emplace_back();
    tensor.name = name;
    tensor.dtype = dtype;
    tensor.shape = std::move(shape);
    tensor.role = role;
    host.tensors.push_back(counting(*manifest::dense_bytes(dtype, *checked_product(tensor.shape))));
    return tensor;
  }
  auto run(test::OptionValues options = {}) {
    const bool is_given =
        std::ranges::any_of(options, [](auto& o) { return o.first == "dcp-shards"; });
    if (!is_given) options.emplace_back("dcp-shards", "1");
    return test::run_writer(host, test::linked_plugin(host), model, options);
  }
  Files write(const test::OptionValues& options = {}) {
    auto files = run(options);
    if (!files) throw std::runtime_error(files.error().message);
    return *std::move(files);
  }
  std::string refusal(const test::OptionValues& options = {}) {
    const auto files = run(options);
    return files ? "" : files.error().message;
  }
};

std::vector<std::string> names_of(const Files& files) {
  std::vector<std::string> out;
  for (const auto& [name, bytes] : files) out.push_back(name);
  return out;
}

// "F32 [2,3] at 12: bytes" of an archive.
struct Read {
  DType dtype;
  std::vector<uint64_t> shape;
  std::string bytes;
  bool operator==(const Read&) const = default;
};
Read read_archive(const std::string& file, uint64_t offset, uint64_t length) {
  MemoryHost host;
  host.inputs["x"] = file.substr(offset, length);
  const Host api = host.api();
  const auto source = Input(host.input()).open(api, "x");
  const auto torch = torch_read::TorchFile::open(api, *source, /*verify_crc=*/true);
  if (!torch) throw std::runtime_error(torch.error().message);
  const auto& root = (*torch)->pickle().root();
  REQUIRE(root.kind == torch_read::Kind::kTensor);
  const auto& tensor = (*torch)->pickle().tensor(root);
  const auto& record =
      (*torch)->record(*(*torch)->find_storage((*torch)->pickle().storage(tensor.storage)));
  std::string bytes(record.n_bytes, '\0');
  REQUIRE((*torch)->reader().read(api, record, 0, std::as_writable_bytes(std::span(bytes))));
  return {tensor.dtype, tensor.shape, bytes};
}

Layout layout_of(const Job& job, uint64_t n_shards) {
  Settings settings;
  settings.n_shards = n_shards;
  auto out = make_layout(job.model, settings);
  if (!out) throw std::runtime_error(out.error().message);
  return *std::move(out);
}

}  // namespace

TEST_CASE("rows are cut as torch.chunk cuts them, and each chunk is a file of torch.save") {
  Job job;
  job.add("w", DType::F32, {7, 3});
  job.add("scalar", DType::BF16, {});
  job.add("short", DType::I64, {2});
  job.add("none", DType::F16, {0, 4});
  job.add("buffer", DType::F64, {5}, Role::kBuffer);
  job.add("fp8", DType::F8_E4M3, {4, 1});
  const Files files = job.write({{"dcp-shards", "4"}});
  CHECK(names_of(files) == std::vector<std::string>{".metadata", "__0_0.distcp", "__1_0.distcp",
                                                    "__2_0.distcp", "__3_0.distcp"});
  const Layout layout = layout_of(job, 4);
  const auto rows_of = [&](size_t entry) {
    std::vector<std::pair<size_t, std::vector<uint64_t>>> out;  // shard, sizes
    for (size_t i = 0; i < layout.shards.size(); ++i) {
      for (const Chunk& c : layout.shards[i].chunks)
        if (c.entry == entry) out.push_back({i, sizes_of(layout.entries[entry], c)});
    }
    return out;
  };
  using Rows = std::vector<std::pair<size_t, std::vector<uint64_t>>>;
  CHECK(rows_of(0) == Rows{{0, {2, 3}}, {1, {2, 3}}, {2, {2, 3}}, {3, {1, 3}}});
  CHECK(rows_of(1) == Rows{{0, {}}});
  CHECK(rows_of(2) == Rows{{0, {1}}, {1, {1}}});
  CHECK(rows_of(3) == Rows{{0, {0, 4}}});
  CHECK(rows_of(4) == Rows{{0, {5}}});
  CHECK(rows_of(5) == Rows{{0, {1, 1}}, {1, {1, 1}}, {2, {1, 1}}, {3, {1, 1}}});
  for (const Shard& shard : layout.shards) {
    uint64_t at = 0;
    for (const Chunk& chunk : shard.chunks) {
      const Entry& entry = layout.entries[chunk.entry];
      CHECK(chunk.offset == at);
      at += chunk.n_bytes;
      const uint64_t elem_bytes = manifest::info(entry.dtype).bits / 8;
      const Read want{entry.dtype, sizes_of(entry, chunk),
                      job.host.tensors[entry.tensor].substr(chunk.begin * elem_bytes,
                                                            chunk.count * elem_bytes)};
      CHECK(read_archive(files.at(shard.file), chunk.offset, chunk.n_bytes) == want);
    }
    CHECK(files.at(shard.file).size() == at);
  }
}

TEST_CASE("shards that would be empty are left out") {
  Job job;
  job.add("w", DType::F32, {5});  // 2 + 2 + 1
  CHECK(names_of(job.write({{"dcp-shards", "4"}})) ==
        std::vector<std::string>{".metadata", "__0_0.distcp", "__1_0.distcp", "__2_0.distcp"});
  CHECK(names_of(Job().write({{"dcp-shards", "3"}})) ==
        std::vector<std::string>{".metadata", "__0_0.distcp"});
}

TEST_CASE("archives share items, and one that is larger than an item is several") {
  Job job;
  job.add("a", DType::F32, {6});
  job.add("b", DType::F32, {4, 100});
  job.add("c", DType::F32, {5});
  const Layout layout = layout_of(job, 1);
  const Shard& shard = layout.shards[0];
  for (const uint64_t max_bytes :
       {uint64_t{1}, uint64_t{20}, uint64_t{600}, uint64_t{4000}, kMaxItemBytes}) {
    CAPTURE(max_bytes);
    uint64_t at = 0;
    for (const Item& item : cut(layout, shard, max_bytes)) {
      CHECK(item.is_part <= (item.n_chunks == 1));
      if (item.is_part && item.begin == 0)
        CHECK(item.offset == shard.chunks[item.first_chunk].offset);
      CHECK(item.offset >= at);  // what seal writes lies between
      at = item.offset + item.n_bytes;
    }
    CHECK(at <= shard.n_bytes);
  }
  CHECK(cut(layout, shard).size() == 1);
  const auto items = cut(layout, shard, 600);
  REQUIRE(items.size() == 5);  // a, b in 150 + 150 + 100, c
  CHECK(items[1].is_part);
  CHECK((items[3].begin == 300 && items[3].count == 100));
}

TEST_CASE("the parts of an archive, joined by seal, are the archive") {
  Job job;
  job.add("a", DType::F32, {2});
  job.add("b", DType::F32, {41, 3});
  job.add("c", DType::F32, {2});
  const Layout layout = layout_of(job, 1);
  const std::string whole = job.write().at("__0_0.distcp");
  for (const uint64_t max_bytes : {uint64_t{4}, uint64_t{100}, uint64_t{256}}) {
    CAPTURE(max_bytes);
    // A writer of this cut.
    struct Cut : Writer {
      const Layout& layout;
      const Manifest& model;
      uint64_t max_bytes;
      Cut(const Layout& l, const Manifest& m, uint64_t n) : layout(l), model(m), max_bytes(n) {}
      Result<void> plan(const Host&, Plan& out) override {
        XD_TRY_SET(const uint32_t id, out.object("x", layout.shards[0].n_bytes));
        return plan_items(out, id, layout, layout.shards[0], max_bytes);
      }
      Result<std::string> write_item(const Host& host, uint32_t, uint64_t i, Object& out) override {
        XD_TRY_SET(const auto result,
                   writer_dcp::write_item(host, model, layout, layout.shards[0],
                                          cut(layout, layout.shards[0], max_bytes).at(i), out));
        return result.encode();
      }
      Result<void> seal(const Host&, uint32_t, Object& out,
                        std::span<const std::string_view> results) override {
        auto done = writer_dcp::seal(layout, layout.shards[0], out, results, max_bytes);
        return done ? Result<void>() : std::move(done).error();
      }
    };
    static const Cut* wanted;
    const Cut prototype(layout, job.model, max_bytes);
    wanted = &prototype;
    struct Made : Cut {
      using Cut::Cut;
      static Result<std::unique_ptr<Writer>> open(const Host&, Manifest, const Options&) {
        return std::unique_ptr<Writer>(new Cut(wanted->layout, wanted->model, wanted->max_bytes));
      }
    };
    xd_plugin_desc desc = test::linked_plugin(job.host);
    desc.writer = &kWriterApi<Made>;
    MemoryHost host;
    host.tensors = job.host.tensors;
    host.threads = 2;
    const auto files = test::run_writer(host, desc, job.model);
    REQUIRE(files);
    CHECK(files->at("x") == whole);
    CHECK(host.plan.objects[0]->items.size() > 2);
  }
}

TEST_CASE("what seal cannot use is our own fault") {
  Job job;
  job.add("a", DType::F32, {2});
  const Layout layout = layout_of(job, 1);
  MemoryHost host;
  const Host api = host.api();
  Object out(api, nullptr);
  CHECK(seal(layout, layout.shards[0], out, {}).error().code == XD_INTERNAL);
  const std::string_view bad = "abc";
  CHECK(seal(layout, layout.shards[0], out, {&bad, 1}).error().code == XD_INTERNAL);
}

TEST_CASE("tied names: of the module, else of what the core left out") {
  Job job;
  job.add("embed.weight", DType::F32, {2, 2});
  job.add("head.weight", DType::F32, {2, 2}).excluded = "tied";
  job.add("lost.weight", DType::F32, {2, 2}).excluded = "no use";
  job.model.alias_groups = {{{0, 1}}, {{2}}};
  CHECK(layout_of(job, 1).entries[0].names ==
        std::vector<std::string>{"embed.weight", "head.weight"});
  const std::string metadata = job.write().at(".metadata");
  CHECK(has(metadata, "head.weight"));
  CHECK_FALSE(has(metadata, "lost.weight"));
  job.model.module = {{"embed.weight", 0}, {"other.weight", 0}, {"lost.weight", 2}};
  CHECK(layout_of(job, 1).entries[0].names ==
        std::vector<std::string>{"embed.weight", "other.weight"});
}

TEST_CASE("profiles and prefixes") {
  Job job;
  job.add("a.weight", DType::F32, {2});
  manifest::AuxFile& config = job.model.aux_files.emplace_back();
  config.name = "config.json";
  config.content = manifest::Bytes{R"({"dtype": "float32"})"};
  const Files files = job.write({{"dcp-profile", "accelerate"}, {"dtype", "bf16"}});
  CHECK(names_of(files) == std::vector<std::string>{"config.json", "pytorch_model_fsdp_0/.metadata",
                                                    "pytorch_model_fsdp_0/__0_0.distcp"});
  CHECK(files.at("config.json") == R"({"dtype": "bfloat16"})");
  CHECK(has(files.at("pytorch_model_fsdp_0/.metadata"), "model.a.weight"));
  CHECK(has(job.write({{"dcp-prefix", "app.model"}}).at(".metadata"), "app.model.a.weight"));
  for (const char* bad : {".", "app.", ".app", "a..b"})
    CHECK(has(job.refusal({{"dcp-prefix", bad}}), "expected keys joined by dots"));
  for (const char* bad : {"0", "-1", "65537"})
    CHECK(has(job.refusal({{"dcp-shards", bad}}), "--dcp-shards: expected 1 to 65536, found "));
}

namespace {

void set_config(Job& job, std::string_view type, int64_t n_heads, int64_t n_kv_heads) {
  manifest::ValueMap config;
  config.entries = {{"model_type", {std::string(type)}},
                    {"num_attention_heads", {n_heads}},
                    {"num_key_value_heads", {n_kv_heads}}};
  job.model.source.config.kind = std::move(config);
}

// As torchtitan's adapter: view(heads, 2, rows / heads / 2, columns).transpose(1, 2).
std::string interleaved(const std::string& rows, uint64_t n_heads, uint64_t n_rows,
                        uint64_t row_bytes) {
  std::string out;
  const uint64_t half = n_rows / n_heads / 2;
  for (uint64_t head = 0; head < n_heads; ++head) {
    for (uint64_t i = 0; i < half; ++i) {
      for (uint64_t part = 0; part < 2; ++part)
        out += rows.substr(((head * 2 + part) * half + i) * row_bytes, row_bytes);
    }
  }
  return out;
}

}  // namespace

TEST_CASE("torchtitan's names, and the rows of its heads") {
  Job job;
  set_config(job, "llama", 3, 1);
  const std::string layer = "model.layers.12.";
  job.add("model.embed_tokens.weight", DType::F32, {3, 2});
  job.add(layer + "self_attn.q_proj.weight", DType::F32, {12, 5});
  job.add(layer + "self_attn.k_proj.weight", DType::F32, {4, 5});
  job.add(layer + "mlp.up_proj.weight", DType::F32, {3, 2});
  job.model.module = {{"model.embed_tokens.weight", 0}, {"lm_head.weight", 0}};
  Settings settings;
  settings.profile = Profile::kTorchtitan;
  for (const uint64_t n_shards : {1, 5}) {  // 5: cut inside of heads
    settings.n_shards = n_shards;
    const auto layout = make_layout(job.model, settings);
    REQUIRE(layout);
    CHECK(layout->entries[0].names ==
          std::vector<std::string>{"tok_embeddings.weight", "lm_head.weight"});
    CHECK(layout->entries[1].names[0] == "layers.12.attention.qkv_linear.wq.weight");
    CHECK(layout->entries[3].names[0] == "layers.12.feed_forward.w3.weight");
    const Files files = job.write({{"dcp-profile", "torchtitan"}, {"dcp-shards", cat(n_shards)}});
    const std::string q = interleaved(job.host.tensors[1], 3, 12, 20);
    const std::string k = interleaved(job.host.tensors[2], 1, 4, 20);
    CHECK(q != job.host.tensors[1]);
    for (const Shard& shard : layout->shards) {
      for (const Chunk& chunk : shard.chunks) {
        const std::string& all = chunk.entry == 1   ? q
                                 : chunk.entry == 2 ? k
                                                    : job.host.tensors[chunk.entry];
        CHECK(read_archive(files.at(shard.file), chunk.offset, chunk.n_bytes).bytes ==
              all.substr(chunk.begin * 4, chunk.count * 4));
      }
    }
    job.host.plan = {};
  }
}

TEST_CASE("Qwen 3's rows stay in torchtitan, and other models are refused") {
  Job job;
  set_config(job, "qwen3", 1, 1);
  job.add("model.layers.0.self_attn.q_proj.weight", DType::F32, {4, 2});
  job.add("model.layers.0.self_attn.q_norm.weight", DType::F32, {4});
  const std::string shard = job.write({{"dcp-profile", "torchtitan"}}).at("__0_0.distcp");
  CHECK(has(shard, job.host.tensors[0]));
  const auto refusal = [](std::string_view type, const std::string& name,
                          std::vector<uint64_t> shape, int64_t n_heads = 1) {
    Job other;
    set_config(other, type, n_heads, 1);
    other.add(name, DType::F32, std::move(shape));
    return other.refusal({{"dcp-profile", "torchtitan"}});
  };
  CHECK(refusal("llama", "model.layers.0.self_attn.q_norm.weight", {4}) ==
        "tensor \"model.layers.0.self_attn.q_norm.weight\": expected a parameter that torchtitan's "
        "llama3 has, found another: use --dcp-profile plain for a job of transformers");
  CHECK(has(refusal("llama", "model.layers.x.self_attn.q_proj.weight", {4, 2}), "found another"));
  CHECK(has(refusal("llama", "model.layers.0.self_attn.q_proj.weight", {6, 2}, 2),
            "expected a matrix of 2 heads with an even number of rows each"));
  CHECK(has(refusal("mistral", "w", {1}),
            "expected a config.json of model_type llama or qwen3, found \"mistral\""));
  CHECK(has(refusal("llama", "w", {1}, 0), "expected num_attention_heads in config.json"));
}

TEST_CASE("types that torch has not, and optimizers' moments") {
  Job job;
  job.add("w", DType::F4, {2});
  CHECK(job.refusal() ==
        "tensor \"w\": expected an element type that torch has, found F4: convert "
        "it to plain values first");
  Job state;
  state.add("w", DType::F32, {2});
  state.add("exp_avg/w", DType::F32, {2}, Role::kOptimizerState);
  state.write();
  REQUIRE(state.host.plan.excluded.size() == 1);
  CHECK(state.host.plan.excluded[0].first == 1);
}

TEST_CASE("values beyond --dtype are counted in each shard") {
  Job job;
  job.add("w", DType::F32, {4});
  const float values[] = {1e30f, 1.0f, -1e30f, std::numeric_limits<float>::infinity()};
  job.host.tensors[0].assign(reinterpret_cast<const char*>(values), sizeof values);
  CHECK(has(job.refusal({{"dtype", "fp16"}, {"dcp-shards", "2"}}),
            "expected values that fp16 can hold, found 1 beyond, the first in tensor \"w\""));
  Job again;
  again.add("w", DType::F32, {4});
  again.host.tensors = {job.host.tensors[0]};
  again.write({{"dtype", "fp16"}, {"allow-overflow", "true"}});
  CHECK(again.host.logged("__0_0.distcp: 2 values beyond fp16 became infinite"));
}

TEST_CASE("values of heads that are cut over shards are counted once") {
  Job job;
  set_config(job, "llama", 1, 1);
  job.add("model.layers.0.self_attn.q_proj.weight", DType::F32, {4, 1});
  const float values[] = {1e30f, 1.0f, -1e30f, std::numeric_limits<float>::infinity()};
  job.host.tensors[0].assign(reinterpret_cast<const char*>(values), sizeof values);
  job.write({{"dtype", "fp16"},
             {"allow-overflow", "true"},
             {"dcp-profile", "torchtitan"},
             {"dcp-shards", "4"}});
  CHECK(job.host.logged("__0_0.distcp: 1 values beyond"));
  CHECK(job.host.logged("__1_0.distcp: 1 values beyond"));
  CHECK_FALSE(job.host.logged("__2_0.distcp"));
  CHECK_FALSE(job.host.logged("__3_0.distcp"));
}

TEST_CASE("every call of the host that fails is told") {
  test::check_every_fault([](MemoryHost& host) {
    Job job;
    job.add("w", DType::F32, {4, 2});
    job.add("v", DType::BF16, {3});
    host.tensors = job.host.tensors;
    return test::run_writer(host, test::linked_plugin(host), job.model, {{"dcp-shards", "2"}});
  });
}
