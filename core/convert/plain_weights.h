// SPDX-License-Identifier: Apache-2.0

// The weights of a quantised source become plain ones, and so does what its config.json says.
#pragma once

#include "core/convert/open_model.h"
#include "core/rules/layout.h"

#include <optional>

namespace crossdock::convert {

// --dequant-dtype: the option's name, which readers that dequantise on their own declare too, and
// its choices.
inline constexpr char kDequantDtype[] = "dequant-dtype";
inline constexpr char kDequantDtypes[] = "auto|bf16|fp16|fp32";

// As given for it. Nothing: auto.
std::optional<manifest::DType> dequant_dtype(const std::string& given);

// Makes the model that `m` and `laid_out` are of plain, if it is quantised
// (quantised/dequantise.h); after an error both are as they were.
Result<void> make_plain(OpenModel& source, std::optional<manifest::DType> dtype,
                        rules::LaidOut& laid_out, manifest::Manifest& m);

}  // namespace crossdock::convert
