#include "base/file_guard.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include "base/memory.h"

namespace runahead {
namespace {

class FileGuardTest : public ::testing::Test {
 protected:
  static constexpr size_t kBytes = 3 << 20;

  void SetUp() override { std::ofstream(path_) << std::string(kBytes, 'a'); }
  void TearDown() override { std::filesystem::remove(path_); }
  static bool all_are(const MappedFile& file, char c) {
    return std::ranges::all_of(file.bytes(), [c](std::byte b) { return b == static_cast<std::byte>(c); });
  }
  int open_for_writing() const {
    const int fd = ::open(path_.c_str(), O_RDWR);
    EXPECT_GE(fd, 0);
    return fd;
  }
  void write_over(int fd) const {
    const std::string other(kBytes, 'b');
    EXPECT_EQ(pwrite(fd, other.data(), other.size(), 0), std::ssize(other));
  }
  // Waits for the watch of a child that has the file without a lease, to end it.
  std::pair<int, std::string> end_of_child(void (*damage)(const std::string& path)) {
    const int writer = open_for_writing();  // while it is there, there is no lease
    int said[2];
    EXPECT_EQ(pipe(said), 0);
    const pid_t child = fork();
    if (child == 0) {
      for (const int stream : {STDOUT_FILENO, STDERR_FILENO}) dup2(said[1], stream);
      alarm(20);
      const auto file = MappedFile::open(path_);
      if (!file || guard_of(file->bytes()) != FileGuard::kWatch) _exit(99);
      file->drop_pages();
      damage(path_);
      for (;;)
        if (!all_are(*file, 'a')) pause();
    }
    close(said[1]);
    std::string sentence;
    char buffer[512];
    for (ssize_t got = 0; (got = read(said[0], buffer, sizeof buffer)) > 0;)
      sentence.append(buffer, static_cast<size_t>(got));
    int status = 0;
    waitpid(child, &status, 0);
    close(said[0]);
    close(writer);
    return {status, sentence};
  }

  const std::string path_ = ::testing::TempDir() + "/guarded-" + std::to_string(getpid());
};

TEST_F(FileGuardTest, AWriterWaitsUntilThereIsACopy) {
  const auto file = MappedFile::open(path_);
  ASSERT_TRUE(file);
  ASSERT_EQ(guard_of(file->bytes()), FileGuard::kLease);
  const auto other = MappedFile::open(path_);
  EXPECT_EQ(guard_of(other->bytes()), FileGuard::kLease) << "readers share it";
  const std::byte* const place = file->bytes().data();
  const int fd = open_for_writing();  // returns when both have a copy
  write_over(fd);
  EXPECT_EQ(ftruncate(fd, 5), 0);
  close(fd);
  EXPECT_EQ(guard_of(file->bytes()), FileGuard::kPrivate);
  EXPECT_EQ(file->bytes().data(), place);
  EXPECT_TRUE(all_are(*file, 'a'));
  EXPECT_TRUE(all_are(*other, 'a'));
  file->drop_pages();
  EXPECT_TRUE(all_are(*file, 'a')) << "a copy has nothing to be read again from";
}

TEST_F(FileGuardTest, AFileThatIsClosedHoldsNobodyBack) {
  {
    const auto file = MappedFile::open(path_);
  }
  const int fd = ::open(path_.c_str(), O_RDWR | O_NONBLOCK);  // EWOULDBLOCK under a lease
  EXPECT_GE(fd, 0);
  close(fd);
}

TEST_F(FileGuardTest, ACopyFromTheStartIsOfNoFile) {
  const int writer = open_for_writing();
  const auto file = MappedFile::open(path_);
  EXPECT_EQ(guard_of(file->bytes()), FileGuard::kWatch);
  ASSERT_TRUE(make_private(file->bytes()));
  EXPECT_EQ(guard_of(file->bytes()), FileGuard::kPrivate);
  write_over(writer);
  EXPECT_TRUE(all_are(*file, 'a'));
  close(writer);
}

TEST_F(FileGuardTest, WithoutALeaseAChangeEndsTheProcessWithASentence) {
  const auto [status, sentence] = end_of_child([](const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDWR);
    [[maybe_unused]] const ssize_t done = pwrite(fd, "b", 1, 1000);
  });
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 3) << status;
  EXPECT_NE(sentence.find("was changed while it was in use"), std::string::npos) << sentence;
}

TEST_F(FileGuardTest, WithoutALeaseAFileThatIsCutEndsTheProcessWithASentence) {
  const auto [status, sentence] =
      end_of_child([](const std::string& path) { [[maybe_unused]] const int done = truncate(path.c_str(), 0); });
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 3) << status;
  EXPECT_TRUE(sentence.find("cut short") != std::string::npos || sentence.find("was changed") != std::string::npos)
      << sentence;
}

}  // namespace
}  // namespace runahead
