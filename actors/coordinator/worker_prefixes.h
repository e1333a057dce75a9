// WorkerPrefixes: beginnings of prompts whose K/V pages one worker keeps, a decode worker with the answers behind them, as the
// coordinator knows them. It decides alone what is kept, used and dropped, so a request that is planned to begin behind kept
// pages finds them there.
//   identity  a page's key is a hash chain over the request's salt and every token up to its end (SHA-256, cut to 128 bits):
//             equal keys mean equal tokens from the first one on, and so equal bits (ADR 2).
//   unit      a column: the pages of 64 tokens, one in every layer that has it (model/lease_shape.h).
//   sharing   a prompt that begins with a kept one shares its columns; each is counted once, and free when neither a kept prefix
//             nor an attempt has it.
//   windows   of a model whose layers see the last tokens only, a worker lacks the pages before the reach of its own: what it
//             keeps begins a prompt only from some column on; an answer that was longer than a window, only behind all of it.
//   order     dropped is what was not used for longest. The columns that an attempt reads stay until it has ended.
//   pure      owned by the worker's entry in the registry. limits: kKeptPrefixesMax prefixes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "model/lease_shape.h"

namespace runahead {

using PageKey = std::array<std::byte, 16>;

// Of the full pages of a prompt, in order. Requests of unlike salts share nothing.
std::vector<PageKey> page_keys(std::string_view salt, std::span<const TokenId> tokens);
// Adds those that are missing: `keys` are of the first pages of the same tokens.
void extend_page_keys(std::vector<PageKey>& keys, std::string_view salt, std::span<const TokenId> tokens);
// How many the two have in common, from the first one on, `most` at most.
int32_t common_columns(std::span<const PageKey> left, std::span<const PageKey> right, int32_t most);

class WorkerPrefixes {
 public:
  struct Hit {
    uint64_t prefix = 0;  // 0: none
    int32_t columns = 0;  // of it
  };
  // What an attempt on this worker reads, and what it leaves behind.
  struct Claim {
    Hit hit;
    LeaseShape lease;
    uint64_t keep = 0;  // the number under which its columns shall be kept; 0: not
    std::vector<PageKey> keys;  // of those; of an answer's not known yet
    int32_t least = 0;  // columns that a prompt must have in common with them
    uint64_t keep_prompt = 0;  // likewise for its prompt's columns, as soon as they are there
    std::vector<PageKey> prompt_keys;
  };

  // The longest beginning that is here, columns_max at most.
  Hit find(std::span<const PageKey> keys, int32_t columns_max) const;
  // Claim::least of what it was found in; 0 if there is none.
  int32_t least_of(const Hit& hit) const;
  // An attempt begins: what it reads stays.
  void begin(AttemptId attempt, Claim claim);
  // The keys of what it keeps are known now.
  void set_keys(AttemptId attempt, std::vector<PageKey> keys);
  // Its prompt's columns are there, and the worker keeps so many; 0: none. Returns the pages of those that the attempt has made:
  // they are kept ones from now on, which it reads.
  int64_t keep_prompt(AttemptId attempt, int32_t kept);
  // It has ended, and the worker keeps so many columns of it; 0: none. Columns that it has made are kept ones from now on.
  void end(AttemptId attempt, int32_t kept);

  int64_t pages() const { return pages_; }  // beside those that attempts have made
  int64_t pages_in_use() const { return in_use_; }  // by attempts
  int64_t pages_idle(Hit hit) const;  // of these, those that no attempt reads
  // Drops the prefix that was not used for longest, but for those that attempts read to their end: nothing would be free. False
  // if there is none.
  bool drop_oldest();
  // The worker says that it does not have it.
  void forget(uint64_t prefix);
  // What the worker must be told to drop, once.
  std::vector<uint64_t> take_dropped() { return std::exchange(dropped_, {}); }

 private:
  using Column = uint64_t;  // a number of its own for every column that was ever kept
  struct Kept {
    std::vector<PageKey> keys;
    std::vector<Column> columns;  // [keys.size()]
    int32_t least = 0;  // Claim's
    uint64_t used = 0;  // when
  };
  struct Uses {
    int32_t pages = 0;
    int32_t prefixes = 0, attempts = 0;
  };
  struct Running {
    Claim claim;
    std::vector<Column> columns;  // that it reads: [claim.hit.columns], or those of its prompt
  };

  void add(uint64_t number, std::vector<PageKey> keys, std::vector<Column> columns, const Claim& claim);
  uint64_t oldest(bool even_if_read) const;
  void drop(uint64_t prefix);
  void read(Column column);
  void forget_unused(Column column);

  std::map<uint64_t, Kept> kept_;
  std::map<Column, Uses> uses_;
  std::map<AttemptId, Running> running_;
  std::vector<uint64_t> dropped_;
  Column last_column_ = 0;
  uint64_t clock_ = 0;  // counts uses
  int64_t pages_ = 0, in_use_ = 0;  // of uses_
};

}  // namespace runahead
