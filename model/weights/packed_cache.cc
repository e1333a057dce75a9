#include "model/weights/packed_cache.h"

#include <xxhash.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <cstddef>
#include <cstring>

#include "base/check.h"
#include "base/file_guard.h"
#include "base/limits.h"
#include "base/log.h"

namespace runahead {
namespace {

constexpr std::array<char, 8> kMagic = {'R', 'A', 'P', 'A', 'N', 'E', 'L', 'S'};
constexpr size_t kDataAlignment = 64;  // a cache line, as AlignedBuffer
constexpr size_t kHashDigits = 32;     // of Gguf::content_hash
constexpr std::string_view kSuffix = ".panels";

struct PackedFileHeader {
  std::array<char, 8> magic = kMagic;
  uint32_t layout_version = kPackedLayoutVersion;
  uint32_t num_matrices = 0;
  std::array<char, kHashDigits> model_hash{};
  uint64_t file_bytes = 0;
  uint64_t index_bytes = 0;  // entries and formats, right after the header
  uint64_t checksum = 0;     // XXH3 of the index, seeded with that of the header's bytes before this field
};
static_assert(sizeof(PackedFileHeader) == 72 && std::is_trivially_copyable_v<PackedFileHeader>);

struct PackedFileEntry {
  uint64_t offset = 0, bytes = 0;  // of the matrix's panels, from the start of the file
  uint64_t checksum = 0;           // XXH3 of them
  int32_t k = 0;
  uint32_t num_panels = 0;
};
static_assert(sizeof(PackedFileEntry) == 32 && std::is_trivially_copyable_v<PackedFileEntry>);

uint64_t aligned(uint64_t offset) { return (offset + kDataAlignment - 1) / kDataAlignment * kDataAlignment; }

uint64_t checksum_of(const PackedFileHeader& header, std::span<const std::byte> index) {
  const uint64_t seed = XXH3_64bits(&header, offsetof(PackedFileHeader, checksum));
  return XXH3_64bits_withSeed(index.data(), index.size(), seed);
}

uint64_t panels_of(const PackedShape& shape) {
  return static_cast<uint64_t>((shape.rows + kPanelOutputs - 1) / kPanelOutputs);
}

// <32 hex digits>-v<N>.panels, N below ours.
bool is_older_layout(std::string_view name) {
  constexpr size_t kVersionAt = kHashDigits + 2;
  if (name.size() <= kVersionAt || name.substr(kHashDigits, 2) != "-v") return false;
  uint32_t version = kPackedLayoutVersion;
  const auto parsed = std::from_chars(name.data() + kVersionAt, name.data() + name.size(), version);
  const std::string_view rest = name.substr(static_cast<size_t>(parsed.ptr - name.data()));
  return parsed.ec == std::errc() && version < kPackedLayoutVersion && rest.starts_with(kSuffix);
}

std::unexpected<Error> bad(std::string what) { return fail(ErrorCode::kCorrupt, std::move(what)); }

// The index, whole and unchanged since it was written; nothing it says is believed yet.
Result<std::span<const std::byte>> read_index(std::span<const std::byte> file, const std::string& model_hash,
                                              size_t num_matrices, uint64_t expected_bytes) {
  PackedFileHeader header;
  if (file.size() < sizeof(header)) return bad("it ends inside its header");
  std::memcpy(&header, file.data(), sizeof(header));
  if (header.magic != kMagic) return bad("it is no file of packed weights");
  if (header.layout_version != kPackedLayoutVersion)
    return bad("it has layout " + std::to_string(header.layout_version) + ", and this build reads " +
               std::to_string(kPackedLayoutVersion));
  if (std::string_view(header.model_hash.data(), header.model_hash.size()) != model_hash)
    return bad("it belongs to another model");
  if (header.file_bytes != file.size())
    return bad("it has " + std::to_string(file.size()) + " bytes instead of " + std::to_string(header.file_bytes));
  if (header.num_matrices != num_matrices || header.index_bytes != expected_bytes ||
      expected_bytes > file.size() - sizeof(header))
    return bad("its index does not fit the model");
  const auto index = file.subspan(sizeof(header), expected_bytes);
  if (checksum_of(header, index) != header.checksum) return bad("the checksum of its index is wrong");
  return index;
}

// A view of one matrix after its place and shape are checked.
Result<PackedMatrix> view_matrix(std::span<const std::byte> file, const PackedFileEntry& entry,
                                 const PackedShape& shape, std::span<const std::byte> format_bytes) {
  if (entry.k != shape.k || entry.num_panels != panels_of(shape)) return bad("a matrix has another shape");
  std::vector<PanelFormat> formats;
  uint64_t bytes = 0;
  for (const std::byte format : format_bytes) {
    if (format > std::byte{static_cast<uint8_t>(kLastPanelFormat)}) return bad("a panel's format is unknown");
    formats.push_back(static_cast<PanelFormat>(format));
    if (shape.k / kPanelBlock % panel_layout(formats.back()).blocks != 0)
      return bad("a panel has no whole superblocks");
    bytes += panel_bytes(formats.back(), shape.k);
  }
  if (bytes != entry.bytes || entry.offset % kDataAlignment != 0 || entry.offset > file.size() ||
      bytes > file.size() - entry.offset)
    return bad("a matrix lies outside of it");
  return PackedMatrix(formats, shape.k, file.subspan(entry.offset, bytes));
}

}  // namespace

PackedCache::PackedCache(std::filesystem::path folder, std::string model_hash)
    : folder_(std::move(folder)), model_hash_(std::move(model_hash)) {
  RUNAHEAD_CHECK(model_hash_.size() == kHashDigits, "a model's hash has 32 hex digits");
  path_ = folder_ / (model_hash_ + "-v" + std::to_string(kPackedLayoutVersion) + std::string(kSuffix));
}

Result<PackedFile> PackedCache::open(std::span<const PackedShape> shapes, ThreadTeam& team) const {
  PackedFile out;
  out.file = TRY(MappedFile::open(path_));
  if (guard_of(out.file.bytes()) != FileGuard::kLease) {  // before the checksums: what they find good stays so
    log::info("{} gives no lease, so the packed weights are not shared with other processes", path_.string());
    TRY(make_private(out.file.bytes()));
  }
  const std::span<const std::byte> file = out.file.bytes();
  uint64_t num_panels = 0;
  for (const PackedShape& shape : shapes) num_panels += panels_of(shape);
  const uint64_t entry_bytes = shapes.size() * sizeof(PackedFileEntry);
  const auto index = TRY(read_index(file, model_hash_, shapes.size(), entry_bytes + num_panels));
  std::vector<PackedFileEntry> entries(shapes.size());
  std::memcpy(entries.data(), index.data(), entry_bytes);
  std::span<const std::byte> formats = index.subspan(entry_bytes);
  for (size_t i = 0; i < shapes.size(); ++i) {
    const uint64_t count = panels_of(shapes[i]);
    out.matrices.push_back(TRY(view_matrix(file, entries[i], shapes[i], formats.first(count))));
    formats = formats.subspan(count);
  }
  std::atomic<bool> damaged = false;
  team.run(static_cast<int32_t>(entries.size()), [&](int32_t part, int32_t) {
    const auto i = static_cast<size_t>(part);
    const auto data = out.matrices[i].data();
    if (XXH3_64bits(data.data(), data.size()) != entries[i].checksum) damaged = true;
  });
  if (damaged) return bad("the checksum of its weights is wrong");
  return out;
}

Result<FileLock> PackedCache::lock() const {
  std::error_code failed;
  std::filesystem::create_directories(folder_, failed);
  if (failed) return fail(ErrorCode::kUnavailable, "cannot make " + folder_.string() + ": " + failed.message());
  return FileLock::acquire(path_.string() + ".lock", limits::kPackedCacheLockTimeout);
}

Result<void> PackedCache::write(std::span<const PackedMatrix* const> matrices) const {
  PackedFileHeader header;
  header.num_matrices = static_cast<uint32_t>(matrices.size());
  std::memcpy(header.model_hash.data(), model_hash_.data(), header.model_hash.size());
  std::vector<std::byte> formats;
  for (const PackedMatrix* m : matrices)
    for (int32_t p = 0; p < m->num_panels(); ++p) formats.push_back(static_cast<std::byte>(m->panels()[p].format));
  header.index_bytes = matrices.size() * sizeof(PackedFileEntry) + formats.size();
  std::vector<PackedFileEntry> entries;
  uint64_t at = sizeof(header) + header.index_bytes;
  static constexpr std::array<std::byte, kDataAlignment> kZeros{};
  std::vector<std::span<const std::byte>> data;
  for (const PackedMatrix* m : matrices) {
    data.push_back(std::span(kZeros).first(aligned(at) - at));
    data.push_back(m->data());
    entries.push_back({.offset = aligned(at),
                       .bytes = m->bytes(),
                       .checksum = XXH3_64bits(m->data().data(), m->bytes()),
                       .k = m->k(),
                       .num_panels = static_cast<uint32_t>(m->num_panels())});
    at = aligned(at) + m->bytes();
  }
  header.file_bytes = at;
  std::vector<std::byte> index(header.index_bytes);
  std::memcpy(index.data(), entries.data(), entries.size() * sizeof(PackedFileEntry));
  std::ranges::copy(formats, index.begin() + static_cast<ptrdiff_t>(entries.size() * sizeof(PackedFileEntry)));
  header.checksum = checksum_of(header, index);
  data.insert(data.begin(), {std::as_bytes(std::span(&header, 1)), std::span<const std::byte>(index)});
  TRY(write_whole_file(path_, data));
  remove_leftovers();
  return {};
}

// Files named <hash>-v<N>.panels, and their locks, with N below ours, of any model; and what writers of our file left
// who died: we hold the lock, so no writer lives.
void PackedCache::remove_leftovers() const {
  std::error_code ignored;
  const std::string unfinished = path_.filename().string() + ".tmp-";
  for (const auto& entry : std::filesystem::directory_iterator(folder_, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(unfinished) || is_older_layout(name)) std::filesystem::remove(entry.path(), ignored);
  }
}

}  // namespace runahead
