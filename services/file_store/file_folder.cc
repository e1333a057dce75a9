#include "services/file_store/file_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <optional>
#include <span>

#include "base/cache_file.h"
#include "base/crc32c.h"

namespace runahead {
namespace {

namespace fs = std::filesystem;

constexpr size_t kReadBytes = 1 << 20;  // at once, of a file that is read whole
constexpr size_t kJsonBytesMax = 4 << 20;  // of one .json: a batch with its errors and its metadata is under 100 KiB
constexpr const char* kEndings[] = {".data", ".json", ".part", ".damaged", ".new"};

std::unexpected<Error> io_error(const std::string& what, const fs::path& path) {
  const int why = errno;
  return fail(ErrorCode::kUnavailable, "cannot " + what + " " + path.filename().string() +
                                           " in the folder of files: " + std::strerror(why) +
                                           (why == ENOSPC ? "; free some room, or delete files" : ""));
}

class Fd {
 public:
  Fd(const fs::path& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0600)) {}
  Fd(const Fd&) = delete;
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }
  bool ok() const { return fd_ >= 0; }

 private:
  int fd_;
};

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// Durable under its name when it returns, and for its owner alone: a client's words, where write_whole_file() makes a cache.
Result<void> write_synced(const fs::path& path, std::string_view bytes) {
  const fs::path fresh = path.string() + ".new";
  {
    const Fd file(fresh, O_WRONLY | O_CREAT | O_TRUNC);
    if (!file.ok()) return io_error("create", fresh);
    if (!write_all(file.get(), bytes_of(bytes)) || ::fsync(file.get()) != 0) {
      auto error = io_error("write", path);
      ::unlink(fresh.c_str());
      return error;
    }
  }
  if (::rename(fresh.c_str(), path.c_str()) != 0) return io_error("write", path);
  return sync_folder(path);
}

std::string with_check(const std::string& text) { return fmt::format("{:08x}\n{}", crc32c(text), text); }

std::optional<std::string> checked(const std::string& stored) {
  constexpr size_t kCheckBytes = 9;
  if (stored.size() < kCheckBytes) return {};
  std::string text = stored.substr(kCheckBytes);
  if (with_check(text) != stored) return {};
  return text;
}

std::optional<std::string> whole_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text(kJsonBytesMax + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(std::max<std::streamsize>(in.gcount(), 0)));
  if (in.bad() || text.size() > kJsonBytesMax) return {};
  return text;
}

}  // namespace

Result<FileFolder::Loaded> FileFolder::load() {
  Loaded loaded;
  std::error_code error;
  for (fs::directory_iterator at(folder_, error), end; !error && at != end; at.increment(error)) {
    const fs::path path = at->path();
    const std::string ending = path.extension().string(), name = path.stem().string();
    if (std::ranges::find(kEndings, ending) == std::end(kEndings)) continue;  // somebody else's
    if (ending == ".new") ::unlink(path.c_str());
    if (ending == ".data" || ending == ".part") loaded.contents.insert(name);
    if (ending != ".json") continue;
    const std::optional<std::string> stored = whole_file(path);
    std::optional<std::string> text = stored ? checked(*stored) : std::nullopt;
    if (text) {
      loaded.json.emplace(name, std::move(*text));
    } else {
      loaded.damage.push_back(path.filename().string() + " is damaged, and is kept as " + name + ".damaged");
      set_aside(name);
    }
  }
  if (error)
    return fail(ErrorCode::kUnavailable, "cannot read the folder " + folder_.string() + ": " + error.message());
  return loaded;
}

Result<void> FileFolder::put_json(const std::string& name, const std::string& text) {
  return write_synced(path(name, ".json"), with_check(text));
}

void FileFolder::remove_json(const std::string& name) {
  ::unlink(path(name, ".json").c_str());
  (void)sync_folder(path(name, ".json"));
}

Result<void> FileFolder::write(const std::string& name, std::string_view bytes) {
  return write_synced(path(name, ".data"), bytes);
}

void FileFolder::remove(const std::string& name) {
  ::unlink(path(name, ".data").c_str());
  ::unlink(path(name, ".part").c_str());
}

Result<std::string> FileFolder::read(const std::string& name, uint64_t offset, size_t bytes) const {
  const Fd file(path(name, ".data"), O_RDONLY);
  if (!file.ok()) return io_error("read", path(name, ".data"));
  std::string text(bytes, '\0');
  size_t have = 0;
  while (have < bytes) {
    const ssize_t got = ::pread(file.get(), text.data() + have, bytes - have, static_cast<off_t>(offset + have));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return io_error("read", path(name, ".data"));
    if (got == 0) break;
    have += static_cast<size_t>(got);
  }
  text.resize(have);
  return text;
}

Result<FileFolder::Content> FileFolder::content(const std::string& name) const {
  Content content;
  for (;;) {
    const std::string piece = TRY(read(name, content.bytes, kReadBytes));
    content.check = crc32c(piece, content.check);
    content.bytes += piece.size();
    if (piece.size() < kReadBytes) return content;
  }
}

bool FileFolder::has_data(const std::string& name) const { return fs::exists(path(name, ".data")); }

void FileFolder::set_aside(const std::string& name) {
  ::rename(path(name, ".json").c_str(), path(name, ".damaged").c_str());
}

Result<void> FileFolder::recover_part(const std::string& name, const std::function<bool(std::string_view)>& take) {
  const fs::path part = path(name, ".part");
  std::ifstream in(part, std::ios::binary);
  if (!in) return {};  // none yet
  std::string line;
  uint64_t whole = 0;
  while (std::getline(in, line) && !in.eof()) {  // at the end of the file: no newline ended it
    if (!take(line)) break;
    whole += line.size() + 1;
  }
  in.close();
  if (::truncate(part.c_str(), static_cast<off_t>(whole)) != 0) return io_error("cut", part);
  return {};
}

Result<void> FileFolder::append(const std::string& name, std::string_view bytes) {
  const fs::path part = path(name, ".part");
  const Fd file(part, O_WRONLY | O_CREAT | O_APPEND);
  if (!file.ok()) return io_error("create", part);
  const off_t before = ::lseek(file.get(), 0, SEEK_END);
  if (write_all(file.get(), bytes_of(bytes))) return {};
  auto error = io_error("write", part);
  if (::ftruncate(file.get(), before) != 0) return io_error("cut", part);
  return error;
}

Result<void> FileFolder::finish_part(const std::string& name) {
  const fs::path part = path(name, ".part"), data = path(name, ".data");
  {
    const Fd file(part, O_WRONLY);
    if (!file.ok() && errno == ENOENT) {
      if (has_data(name)) return {};
      return fail(ErrorCode::kCorrupt, "the file " + part.filename().string() + " is gone from the folder of files");
    }
    if (!file.ok() || ::fsync(file.get()) != 0) return io_error("sync", part);
  }
  if (::rename(part.c_str(), data.c_str()) != 0) return io_error("write", data);
  return sync_folder(data);
}

}  // namespace runahead
