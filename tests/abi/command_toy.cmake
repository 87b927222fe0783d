# SPDX-License-Identifier: Apache-2.0

# A reader and a writer in C, in the real host: conversions that must give the same bytes back.
include(${CMAKE_CURRENT_LIST_DIR}/command.cmake)
set(plugins --plugin-path ${LIBRARIES}/${TOY})
set(quick --no-sync --progress none)

# A matrix, a scalar, an empty tensor, and one that is larger than what the reader can view.
string(REPEAT "0123456789abcdef" 8192 big)  # 131072 bytes, of sum 8192 * 0x462
set(head "xdtoy 1\nh.0.weight BF16 2,3\nscale F32 -\nnone I64 0,5\nbig U8 2,65536\ndata\n")
set(tail "00000000000003ca\n0000000000000190\n0000000000000000\n00000000008c4000\n")
file(WRITE ${WORK}/in.xdtoy "${head}PQRSPQPQPQPQdddd${big}${tail}")
file(SIZE ${WORK}/in.xdtoy size)

run(0 convert in.xdtoy out --to toy --from toy ${plugins} ${quick})
file(READ ${WORK}/out/model.xdtoy written)
file(READ ${WORK}/in.xdtoy given)
if(NOT written STREQUAL given)
  string(SUBSTRING "${written}" 0 200 written)
  message(FATAL_ERROR "the copy differs from the source, it begins with:\n${written}")
endif()
if(NOT EXISTS ${WORK}/out/crossdock.json)
  message(FATAL_ERROR "expected the report out/crossdock.json")
endif()

# The reader finds the one file of a folder, and is found by its probe. Any budget gives the same bytes.
run(0 convert out again --to toy ${plugins} ${quick} --memory 8MiB --threads 3)
expect_same_files(${WORK}/out/model.xdtoy ${WORK}/again/model.xdtoy)
run(0 convert out one-thread --to toy ${plugins} ${quick} --threads 1)
expect_same_files(${WORK}/out/model.xdtoy ${WORK}/one-thread/model.xdtoy)

# The plugin's option is an ordinary flag; names change and casts happen in the host.
run(0 convert --to toy --help ${plugins})
expect("--comment")
run(0 convert in.xdtoy named --to toy ${plugins} ${quick} --comment "made by hand" --rename "^h=layers")
file(READ ${WORK}/named/model.xdtoy written LIMIT 60)
if(NOT written MATCHES "^xdtoy 1\n# made by hand\nlayers\\.0\\.weight BF16 2,3\n")
  message(FATAL_ERROR "expected the comment and the new name, found\n${written}")
endif()
run(2 convert in.xdtoy x --to toy ${plugins} --no-such-flag 1)

# Two checkpoints compare by their digests.
run(0 inspect in.xdtoy --json --digest sha256 ${plugins})
set(first "${output}")
expect("\"BF16\"")
run(0 inspect again --json --digest sha256 ${plugins})
string(REGEX MATCHALL "sha256:[0-9a-f]+" theirs "${output}")
string(REGEX MATCHALL "sha256:[0-9a-f]+" ours "${first}")
list(LENGTH ours n)
if(NOT n EQUAL 4 OR NOT ours STREQUAL theirs)
  message(FATAL_ERROR "expected the same 4 digests, found\n${ours}\n${theirs}")
endif()

# A dry run writes nothing; a bad source leaves nothing, and the message has the file, the line and the plugin's reason.
run(0 convert in.xdtoy dry --to toy ${plugins} --dry-run)
expect_absent(dry dry.partial)
file(WRITE ${WORK}/bad.xdtoy "xdtoy 1\nw F33 2\ndata\n")
run(1 convert bad.xdtoy bad --to toy ${plugins} ${quick})
expect("bad.xdtoy: line 2: expected a type such as F32 or BF16")
expect_absent(bad bad.partial)

# From C to the real writer.
run(0 plugins)
if(output MATCHES "org.crossdock.writer.universal")
  run(0 convert in.xdtoy universal --to universal --from toy ${plugins} ${quick})
  foreach(file latest_universal global_step0/zero/h.0.weight/fp32.pt global_step0/zero/scale/exp_avg.pt crossdock.json)
    if(NOT EXISTS ${WORK}/universal/${file})
      message(FATAL_ERROR "expected universal/${file}, found none")
    endif()
  endforeach()
  expect_absent(universal/global_step0/zero/none universal/global_step0/zero/big)
endif()
run(0 plugins)
if(output MATCHES "org.crossdock.writer.safetensors")
  run(0 convert in.xdtoy folder --to safetensors --from toy ${plugins} ${quick})
  foreach(file model.safetensors crossdock.json)
    if(NOT EXISTS ${WORK}/folder/${file})
      message(FATAL_ERROR "expected folder/${file}, found none")
    endif()
  endforeach()
endif()

# Without its folder the format is unknown.
run(2 convert in.xdtoy x --to toy)
expect("found toy")
