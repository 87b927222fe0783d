// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <atomic>
#include <cfenv>
#include <csignal>
#include <thread>

#include "tests/validate/faulty.h"

namespace faulty {

namespace {

constexpr uint64_t kSum = 8;

std::vector<uint64_t> shared_begins;  // of the writer that planned last

uint64_t n_elements(const manifest::Tensor& t) { return checked_product(t.shape).value_or(0); }

}  // namespace

Result<std::unique_ptr<crossdock::Writer>> Writer::open(const Host&, manifest::Manifest m,
                                                        const Options&) {
  if (is("wopen-crash")) crash();
  if (is("wopen-throws")) throw std::runtime_error("boom");
  return std::unique_ptr<crossdock::Writer>(new Writer(std::move(m)));
}

Result<void> Writer::plan(const Host& host, Plan& out) {
  if (is("plan-hang")) hang();
  if (is("plan-throws")) throw std::runtime_error("boom");
  if (is("plan-exit")) std::exit(0);
  tensors_.clear();
  begins_.clear();
  for (uint64_t i = 0; i < model_.tensors.size(); ++i) {
    const manifest::Tensor& t = model_.tensors[i];
    if (!t.excluded.empty()) continue;
    if (t.dtype != manifest::DType::F32 || n_elements(t) == 0) {
      if (!is("plan-forgets")) XD_TRY(out.exclude(i, is("no-reason") ? "" : "not F32, or empty"));
      continue;
    }
    tensors_.push_back(i);
  }
  if (tensors_.empty()) return unsupported("expected an F32 tensor, found none");
  head_ = "FLT1";
  put_le(head_, uint64_t{tensors_.size()});
  for (const uint64_t i : tensors_) {
    put_le(head_, uint64_t{model_.tensors[i].target().size()});
    head_ += model_.tensors[i].target();
    put_le(head_, n_elements(model_.tensors[i]));
  }
  uint64_t at = head_.size();
  for (const uint64_t i : tensors_) {
    begins_.push_back(at);
    at += 4 * n_elements(model_.tensors[i]);
  }
  shared_begins = begins_;
  auto noted = out.note("a note");
  if (!noted && !is("wfault-ignored")) return noted;
  const std::string path = is("path-escape")    ? "../model.flt"
                           : is("path-root")    ? "/tmp/model.flt"
                           : is("path-control") ? "model\n.flt"
                           : is("path-utf8")    ? "model\xff.flt"
                           : is("plan-random")  ? cat("model", random_number(), ".flt")
                                                : "model.flt";
  const uint64_t size = at + kSum * tensors_.size() + (is("size-more") ? 8 : 0);
  XD_TRY_SET(const uint32_t object, out.object(path, size));
  if (is("path-twice")) XD_TRY(out.object(path, size));
  for (size_t k = 0; k < tensors_.size(); ++k) {
    xd_range need = dense_range(tensors_[k], 0, n_elements(model_.tensors[tensors_[k]]));
    if (is("need-part")) need.count -= need.count / 2;
    if (is("need-beyond")) need.count += 1;
    if (is("need-short")) need.struct_size = 4;
    const uint64_t memory = is("plan-hungry")   ? uint64_t{1} << 40
                            : is("memory-less") ? 16
                                                : std::max<uint64_t>(host.piece_bytes(), 8);
    XD_TRY(out.item(object, {&need, 1}, 4 * need.count, memory));
    if (is("plan-pieces") && host.piece_bytes() < 10'000)
      XD_TRY(out.item(object, {&need, 1}, 4 * need.count, memory));
  }
  if (is("object-number")) {
    const xd_range need = dense_range(0, 0, 1);
    XD_TRY(out.item(object + 5, {&need, 1}, 4, 4));
  }
  return {};
}

Result<void> Writer::write_tensor(const Host& host, Object& out, uint64_t which, uint64_t& sum) {
  const uint64_t tensor = tensors_[which], n = n_elements(model_.tensors[tensor]);
  const uint64_t begin = is("writers-share") ? shared_begins.at(which) : begins_[which];
  const uint64_t step = std::max<uint64_t>(host.piece_bytes() / 8, 1);
  XD_TRY_SET(const Buffer buffer, Buffer::make(host, 4 * std::min(step, n)));
  const uint64_t end = is("item-half") ? n - n / 2 : n;
  for (uint64_t at = 0; at < end; at += step) {
    if (host.cancelled() && !is("cancel-ignored")) return Error{XD_CANCELLED, "cancelled"};
    const uint64_t count = std::min(step, end - at);
    const auto values = buffer.span().first(4 * count);
    XD_TRY(read_tensor(host, dense_range(tensor, at, count), values));
    if (is("values-ignored") && which == tensors_.size() - 1)
      std::fill(values.begin(), values.end(), std::byte{7});
    if (is("values-changed")) values[0] ^= std::byte{1};
    for (const std::byte b : values) sum += static_cast<uint64_t>(b);
    if (is("item-gap") && at == 0 && count > 1) {
      XD_TRY(out.write(begin, values.subspan(4)));
      continue;
    }
    XD_TRY(out.write(begin + 4 * at, values));
    if (is("item-twice")) XD_TRY(out.write(begin + 4 * at, values));
  }
  if (end < n) return out.zero(begin + 4 * end, 4 * (n - end));
  return {};
}

Result<std::string> Writer::write_item(const Host& host, uint32_t, uint64_t item, Object& out) {
  static std::atomic<uint64_t> count{0};
  static uint64_t shared = 0;
  if (is("item-crash")) crash();
  if (is("item-hang")) hang();
  if (is("item-exit")) std::exit(0);
  if (is("item-rounding")) std::fesetround(FE_UPWARD);
  if (is("item-folder")) (void)!::chdir("/");
  if (is("item-signal")) std::signal(SIGINT, SIG_IGN);
  if (is("item-fork") && ::fork() == 0) ::_exit(0);
  if (is("wfailed-and-well")) {
    const xd_failure failure{XD_INIT_SIZE(xd_failure), XD_CORRUPT, nullptr,
                             "must not be published"};
    (void)host.table().fail(host.call(), &failure);
  }
  if (is("cancelled-by-nobody")) return Error{XD_CANCELLED, "cancelled"};
  if (is("item-io")) do_io();
  if (is("item-recursion")) (void)recurse(0);
  if (is("item-throws")) throw std::runtime_error("boom");
  if (is("item-abort")) std::abort();
  if (is("item-beyond")) XD_TRY(out.write(UINT64_MAX - 3, as_bytes("abcd")));
  if (is("item-leak")) (void)host.table().alloc(host.call(), 8, 64);
  if (is("item-other-tensor")) {
    std::byte value[4];
    XD_TRY(read_tensor(host, dense_range(tensors_[item] + 1, 0, 1), value));
  }
  uint64_t sum = 0;
  if (is("item-thread")) {  // which is allowed
    Result<void> done;
    std::thread([&] { done = write_tensor(host, out, item, sum); }).join();
    XD_TRY(std::move(done));
  } else {
    XD_TRY(write_tensor(host, out, item, sum));
  }
  if (is("order-counts")) sum += item == 0 ? (shared = 1) : shared++;
  if (is("result-random")) sum += ++count;
  if (is("threads-share")) {
    shared = sum;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    sum = shared;
  }
  if (is("result-endless")) return std::string(64 << 20, 'x');
  std::string result;
  put_le(result, sum);
  return result;
}

Result<void> Writer::seal(const Host& host, uint32_t, Object& out,
                          std::span<const std::string_view> results) {
  if (is("seal-crash")) crash();
  if (is("seal-throws")) throw 42;
  if (is("seal-gap")) return {};
  XD_TRY(out.write(0, as_bytes(head_)));
  uint64_t end = begins_.back() + 4 * n_elements(model_.tensors[tensors_.back()]);
  for (const std::string_view result : results) {
    XD_TRY(out.write(end, as_bytes(result)));
    end += kSum;
  }
  if (is("seal-memory")) (void)host.table().alloc(host.call(), 64, 64);
  return {};
}

Result<void> Writer::commit(const Host&) {
  if (is("commit-crash")) crash();
  if (is("commit-throws")) throw 42;
  return {};
}

xd_writer_api writer_table_of() {
  xd_writer_api table = kWriterApi<Writer>;
  if (is("wopen-nothing"))
    table.open = [](xd_call*, const xd_writer_open*, xd_writer**) -> xd_status { return XD_OK; };
  if (is("plan-silent"))
    table.plan = [](xd_call*, xd_writer*, xd_plan*) -> xd_status { return XD_INTERNAL; };
  if (is("plan-nothing"))
    table.plan = [](xd_call*, xd_writer*, xd_plan*) -> xd_status { return XD_OK; };
  if (is("needs-null"))
    table.plan = [](xd_call* c, xd_writer*, xd_plan* p) -> xd_status {
      uint32_t object = 0;
      const xd_object_desc desc{XD_INIT_SIZE(xd_object_desc), 0, "x", 4};
      const xd_item_desc item{XD_INIT_SIZE(xd_item_desc), 0, nullptr, 4, 4};
      const xd_status status = c->host->plan_object(c, p, &desc, &object);
      return status != XD_OK ? status : c->host->plan_item(c, p, &item);
    };
  if (is("path-null"))
    table.plan = [](xd_call* c, xd_writer*, xd_plan* p) -> xd_status {
      uint32_t object = 0;
      const xd_object_desc desc{XD_INIT_SIZE(xd_object_desc), 0, nullptr, 4};
      return c->host->plan_object(c, p, &desc, &object);
    };
  if (is("seal-silent"))
    table.seal = [](xd_call*, xd_writer*, const xd_seal*) -> xd_status { return XD_IO; };
  return table;
}

}  // namespace faulty
