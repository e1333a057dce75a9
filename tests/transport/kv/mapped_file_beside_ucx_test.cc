// UCX's memory hooks (UCM) stand in for calls of the C library in the whole process; a mapped file must keep its bytes
// beside them too (base/file_guard.h).
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "base/file_guard.h"
#include "base/memory.h"
#include "tests/transport/kv/kv_fixture.h"

namespace runahead {
namespace {

class MappedFileBeside : public KvTest {};

TEST_P(MappedFileBeside, IsPrivateAndUnchangedWhenItIsWrittenOver) {
  constexpr size_t kBytes = 3 << 20;
  std::vector<std::byte> pool(1 << 20);
  const auto transport = make(pool);
  const std::string path = testing::TempDir() + "/beside-" + name_ + "-" + std::to_string(getpid());
  std::ofstream(path) << std::string(kBytes, 'a');
  {
    const auto file = MappedFile::open(path);
    ASSERT_TRUE(file);
    if (guard_of(file->bytes()) != FileGuard::kLease) GTEST_SKIP() << "this file system gives no lease";
    const int writer = ::open(path.c_str(), O_RDWR);  // returns when there is a copy
    ASSERT_GE(writer, 0);
    const std::string other(kBytes, 'b');
    EXPECT_EQ(pwrite(writer, other.data(), other.size(), 0), std::ssize(other));
    EXPECT_EQ(guard_of(file->bytes()), FileGuard::kPrivate);
    EXPECT_TRUE(std::ranges::all_of(file->bytes(), [](std::byte b) { return b == std::byte{'a'}; }));
    EXPECT_EQ(ftruncate(writer, 5), 0);
    EXPECT_EQ(file->bytes().back(), std::byte{'a'}) << "and no bus error";
    close(writer);
  }
  std::filesystem::remove(path);
}

INSTANTIATE_TEST_SUITE_P(Transports, MappedFileBeside, testing::Values("tcp", "ucx"), param_name);

}  // namespace
}  // namespace runahead
