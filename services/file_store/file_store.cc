#include "services/file_store/file_store.h"

#include <nlohmann/json.hpp>

#include "base/crc32c.h"
#include "base/json_text.h"

namespace runahead {
namespace {

using nlohmann::json;

constexpr const char* kFilePrefix = "file-";

std::string to_json(const FileHead& head) {
  return to_text({{"owner", head.owner},
                  {"filename", head.filename},
                  {"purpose", head.purpose},
                  {"bytes", head.bytes},
                  {"created_unix_ms", head.created_unix_ms},
                  {"check", head.check}});
}

// Its CRC has matched: this is what to_json() wrote, of this version or of another one.
FileHead head_of(std::string id, const json& stored) {
  return {.id = std::move(id),
          .owner = stored.value("owner", ""),
          .filename = stored.value("filename", ""),
          .purpose = stored.value("purpose", ""),
          .bytes = stored.value("bytes", uint64_t{0}),
          .created_unix_ms = stored.value("created_unix_ms", int64_t{0}),
          .check = stored.value("check", uint32_t{0})};
}

std::unexpected<Error> bad_folder(const FileStoreOptions& options, const std::string& why) {
  return fail(ErrorCode::kInvalidConfig, "the folder of files " + options.folder.string() + " " + why, "files-dir");
}

std::unexpected<Error> not_found(const std::string& id) {
  return fail(ErrorCode::kNotFound, "there is no file " + printable_line(id, 64), "file_id");
}

// Room that is taken while a file is on its way to the disk.
class Coming {
 public:
  Coming(uint64_t& bytes, size_t& files, uint64_t size) : bytes_(bytes), files_(files), size_(size) {
    bytes_ += size_;
    ++files_;
  }
  Coming(const Coming&) = delete;
  ~Coming() {
    bytes_ -= size_;
    --files_;
  }

 private:
  uint64_t& bytes_;
  size_t& files_;
  uint64_t size_;
};

}  // namespace

Result<std::unique_ptr<FileStore>> FileStore::open(FileStoreOptions options) {
  std::error_code error;
  std::filesystem::create_directory(options.folder, error);
  if (error || !std::filesystem::is_directory(options.folder, error))
    return bad_folder(options, "cannot be made, or is no folder; name another one");
  Result<FileLock> lock = FileLock::acquire(options.folder / ".lock", std::chrono::milliseconds(0));
  if (!lock && lock.error().code == ErrorCode::kDeadlineExceeded)
    return bad_folder(options, "is in use by another process; stop it or name another folder");
  if (!lock) return bad_folder(options, "cannot be written; check its rights (" + lock.error().message + ")");
  std::unique_ptr<FileStore> store(new FileStore(std::move(options), std::move(*lock)));
  Result<FileFolder::Loaded> loaded = store->folder_.load();
  if (!loaded) return bad_folder(store->options_, "cannot be read; check its rights (" + loaded.error().message + ")");
  store->damage_ = std::move(loaded->damage);
  store->loose_ = std::move(loaded->contents);
  for (auto& [name, text] : loaded->json) store->take(name, text, store->loose_.contains(name));
  return store;
}

FileStore::FileStore(FileStoreOptions options, FileLock lock)
    : options_(std::move(options)), lock_(std::move(lock)), folder_(options_.folder) {}

void FileStore::take(std::string name, const std::string& text, bool has_content) {
  if (!name.starts_with(kFilePrefix)) {
    records_.emplace(std::move(name), text);
    return;
  }
  const json stored = json::parse(text, nullptr, false);
  if (!stored.is_object() || !has_content || !folder_.has_data(name)) {
    damage_.push_back("the bytes of " + name + " are gone; what is known of it is kept as " + name + ".damaged");
    folder_.set_aside(name);
    return;
  }
  FileHead head = head_of(name, stored);
  bytes_ += head.bytes;
  loose_.erase(name);
  files_.emplace(std::move(name), std::move(head));
}

const FileHead* FileStore::find(const std::string& owner, const std::string& id) const {
  const auto found = files_.find(id);
  if (found == files_.end() || (!found->second.owner.empty() && found->second.owner != owner)) return nullptr;
  return &found->second;
}

Task<FileHead> FileStore::add(FileHead head, std::shared_ptr<const std::string> body, std::string_view content) {
  if (files_.size() + coming_ >= options_.files_max || bytes_ + coming_bytes_ + content.size() > options_.bytes_max)
    co_return overloaded("there is no room for more files; delete some that are not needed any more", 0);
  const Coming coming(coming_bytes_, coming_, content.size());
  head.bytes = content.size();
  std::function<Result<FileHead>()> write = [this, head, body, content]() mutable -> Result<FileHead> {
    head.check = crc32c(content);
    TRY(folder_.write(head.id, content));
    const Result<void> known = folder_.put_json(head.id, to_json(head));
    if (!known) folder_.remove(head.id);
    if (!known) return std::unexpected(known.error());
    return head;
  };
  auto added = co_await lane_.run(std::move(write));
  head = CO_TRY(added);
  bytes_ += head.bytes;
  files_.emplace(head.id, head);
  co_return head;
}

Task<void> FileStore::remove(std::string id) {
  const auto found = files_.find(id);
  if (found == files_.end()) co_return not_found(id);
  bytes_ -= found->second.bytes;
  files_.erase(found);
  std::function<Result<void>()> work = [this, id]() -> Result<void> {
    folder_.remove_json(id);
    folder_.remove(id);
    return {};
  };
  co_return co_await lane_.run(std::move(work));
}

Task<std::string> FileStore::read(std::string id, uint64_t offset, size_t bytes) {
  return lane_.run<std::string>([this, id = std::move(id), offset, bytes] { return folder_.read(id, offset, bytes); });
}

Task<void> FileStore::verify(std::string id) {
  const auto found = files_.find(id);
  if (found == files_.end()) co_return not_found(id);
  const FileHead head = found->second;
  std::function<Result<void>()> compare = [this, head]() -> Result<void> {
    const FileFolder::Content content = TRY(folder_.content(head.id));
    if (content.bytes == head.bytes && content.check == head.check) return {};
    return fail(ErrorCode::kCorrupt, "the file " + head.id + " is damaged on the disk; send it again");
  };
  co_return co_await lane_.run(std::move(compare));
}

Task<std::vector<std::string>> FileStore::recover_part(std::string id, size_t prefix_bytes) {
  return lane_.run<std::vector<std::string>>([this, id, prefix_bytes]() -> Result<std::vector<std::string>> {
    std::vector<std::string> prefixes;
    TRY(folder_.recover_part(id, [&](std::string_view line) {
      prefixes.emplace_back(line.substr(0, prefix_bytes));
      return true;
    }));
    return prefixes;
  });
}

Task<void> FileStore::append(std::string id, std::string lines) {
  return lane_.run<void>([this, id = std::move(id), lines = std::move(lines)] { return folder_.append(id, lines); });
}

Task<FileHead> FileStore::finish_part(FileHead head) {
  const auto known = files_.find(head.id);
  if (known != files_.end()) co_return known->second;
  std::function<Result<FileHead>()> finish = [this, head]() mutable -> Result<FileHead> {
    TRY(folder_.finish_part(head.id));
    const FileFolder::Content content = TRY(folder_.content(head.id));
    head.bytes = content.bytes;
    head.check = content.check;
    TRY(folder_.put_json(head.id, to_json(head)));
    return head;
  };
  auto finished = co_await lane_.run(std::move(finish));
  head = CO_TRY(finished);
  bytes_ += head.bytes;
  files_.emplace(head.id, head);
  co_return head;
}

Task<void> FileStore::put_record(std::string id, std::string text) {
  return lane_.run<void>([this, id = std::move(id), text = std::move(text)] { return folder_.put_json(id, text); });
}

Task<void> FileStore::remove_record(std::string id) {
  return lane_.run<void>([this, id = std::move(id)]() -> Result<void> {
    folder_.remove_json(id);
    return {};
  });
}

Task<void> FileStore::remove_orphans(std::set<std::string> kept) {
  std::set<std::string> orphans;
  for (const std::string& name : std::exchange(loose_, {}))
    if (name.starts_with(kFilePrefix) && !kept.contains(name)) orphans.insert(name);
  return lane_.run<void>([this, orphans = std::move(orphans)]() -> Result<void> {
    for (const std::string& name : orphans) folder_.remove(name);
    return {};
  });
}

}  // namespace runahead
