// What the tests say to the double of NCCL (nccl_double.cc), by dlsym in the library that the transport has opened.
#pragma once

namespace runahead {

// nccl_double_set(what, count): from now on, in this process.
enum class NcclDouble : int {
  kDelay = 0,  // microseconds before each page
  kNeverJoins = 1,  // 1: communicators never stand; 0: they do again
  kRefusesToJoin = 2,  // 1: they fail at once
  kStallsAfter = 3,  // pages, then none moves any more until its communicator is aborted; -1: all do
  kFailsAfter = 4,  // pages, then the communicator has failed; -1: none does
  kFlips = 5,  // 1: the first bit of each page that is received
};
using NcclDoubleSet = void (*)(int what, int count);
using NcclDoubleCount = int (*)();  // nccl_double_communicators: that have not been aborted

}  // namespace runahead
