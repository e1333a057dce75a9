// PackedCache: the packed weights of one model on disk, written by the first worker of a machine and mapped read-only by
// all of them, so that they start fast and share one copy of the memory.
//   file    <model's content hash>-v<layout version>.panels in the cache's folder:
//             PackedFileHeader, PackedFileEntry [matrices], PanelFormat [panels of all matrices], then the panels of
//             each matrix, 64-byte aligned. Every part has an XXH3 checksum, and all are verified whenever the file is
//             opened (about 10 ms for 100 MB). A file that fails is packed anew. The checksums find damage, not malice:
//             the folder must be writable only by whoever may choose the model.
//   writers one at a time behind a lock file; a file appears whole, by rename. Files of older layouts are removed.
//   threads any.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/cache_file.h"
#include "base/memory.h"
#include "base/result.h"
#include "kernels/packed_matrix.h"
#include "kernels/thread_team.h"

namespace runahead {

// What a matrix of the model must be: rows as given to PackedMatrix, before they are rounded up to panels.
struct PackedShape {
  int64_t rows = 0;
  int32_t k = 0;
};

// The matrices point into the file.
struct PackedFile {
  MappedFile file;
  std::vector<PackedMatrix> matrices;
};

class PackedCache {
 public:
  // Nothing is touched before the first call. model_hash: Gguf::content_hash().
  PackedCache(std::filesystem::path folder, std::string model_hash);

  // kNotFound if there is none yet, kCorrupt with the reason if it is damaged, of another layout or another model.
  Result<PackedFile> open(std::span<const PackedShape> shapes, ThreadTeam& team) const;
  // Makes the folder if it is missing; waits for another writer. Errors as FileLock::acquire.
  Result<FileLock> lock() const;
  // kUnavailable if the folder or the disk refuses. Call it with the lock held.
  Result<void> write(std::span<const PackedMatrix* const> matrices) const;
  const std::filesystem::path& path() const { return path_; }

 private:
  void remove_leftovers() const;

  std::filesystem::path folder_, path_;
  std::string model_hash_;
};

}  // namespace runahead
