// Values of the chat-template interpreter: Python's, as far as templates can see them.
//   Everything but Namespace and Loop is immutable (Hugging Face renders in jinja2's ImmutableSandboxedEnvironment), so
//   values are shared, never copied, and lists and dicts cannot form cycles.
//   A Namespace can hold itself; the interpreter empties all of them at the end of a render.
//   Budget bounds the time and memory of one render: an evaluated node costs one step, and so do 16 bytes written or
//   scanned. Once it is spent, helpers return early with a meaningless value and the next check() reports it.
// Used by one thread at a time, inside model/chat_template only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "base/limits.h"
#include "base/result.h"

namespace runahead::jinja {

class Budget {
 public:
  explicit Budget(uint64_t steps = limits::kTemplateStepsMax) : left_(steps) {}
  bool spend(uint64_t steps);
  bool spend_bytes(uint64_t bytes) { return spend(1 + bytes / kBytesPerStep); }
  // A value nests deeper than kTemplateDepthMax.
  void report_depth() { broken_ = "the chat template nests values too deeply; simplify it"; }
  bool broken() const { return broken_ != nullptr; }
  Result<void> check() const;

 private:
  static constexpr uint64_t kBytesPerStep = 16;  // all steps of one render write at most 160 MB
  uint64_t left_;
  const char* broken_ = nullptr;
};

class Value;
using List = std::vector<Value>;
enum class Sequence { kList, kTuple, kLazy };  // kLazy: what Python's map and select filters give; always true

struct ListData;
class Dict;
struct Namespace;
struct Loop;
struct Args;
struct Callable {
  std::string name;
  std::function<Result<Value>(const Args&)> call;
  int depth = 0;  // of the value it is bound to, if any
};

class Value {
 public:
  enum class Kind { kUndefined, kNone, kBool, kInt, kFloat, kString, kList, kDict, kNamespace, kLoop, kCallable };
  struct Undefined {
    std::shared_ptr<const std::string> why;  // "'x' is undefined"
  };
  struct None {};

  Value() = default;  // undefined
  static Value undefined(std::string why);
  static Value none();
  static Value boolean(bool b);
  static Value integer(int64_t i);
  static Value real(double d);
  static Value string(std::string s);
  static Value list(List items, Budget& budget, Sequence sequence = Sequence::kList);
  static Value dict(std::shared_ptr<const Dict> dict) { return Value(std::move(dict)); }
  static Value name_space(std::shared_ptr<Namespace> ns) { return Value(std::move(ns)); }
  static Value loop(std::shared_ptr<Loop> loop) { return Value(std::move(loop)); }
  static Value callable(std::string name, std::function<Result<Value>(const Args&)> call, int depth = 0);

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is(Kind kind) const { return this->kind() == kind; }
  bool is_undefined() const { return is(Kind::kUndefined); }
  bool is_none() const { return is(Kind::kNone); }
  bool is_string() const { return is(Kind::kString); }
  bool is_integral() const { return is(Kind::kInt) || is(Kind::kBool); }  // a bool is an int in Python
  bool is_number() const { return is_integral() || is(Kind::kFloat); }

  bool as_bool() const { return std::get<bool>(data_); }
  int64_t as_int() const { return is(Kind::kBool) ? as_bool() : std::get<int64_t>(data_); }
  double as_double() const { return is(Kind::kFloat) ? std::get<double>(data_) : static_cast<double>(as_int()); }
  const std::string& as_string() const { return *std::get<std::shared_ptr<const std::string>>(data_); }
  const List& as_list() const;
  Sequence sequence() const;
  const Dict& as_dict() const { return *std::get<std::shared_ptr<const Dict>>(data_); }
  Namespace& as_namespace() const { return *std::get<std::shared_ptr<Namespace>>(data_); }
  const std::shared_ptr<Loop>& as_loop() const { return std::get<std::shared_ptr<Loop>>(data_); }
  const Callable& as_callable() const { return *std::get<std::shared_ptr<const Callable>>(data_); }
  std::string why_undefined() const;
  int depth() const;  // levels of values inside this one; bounded, so that recursion over values is

  bool truthy() const;
  std::string_view type_name() const;  // as Python names it in its errors

 private:
  using Data = std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const std::string>,
                            std::shared_ptr<const ListData>, std::shared_ptr<const Dict>, std::shared_ptr<Namespace>,
                            std::shared_ptr<Loop>, std::shared_ptr<const Callable>>;
  explicit Value(Data data) : data_(std::move(data)) {}
  Data data_;
};

struct ListData {
  List items;
  Sequence sequence = Sequence::kList;
  int depth = 1;
};

// In insertion order. Keys are strings, numbers, bools or none, as in templates; other keys are an error.
class Dict {
 public:
  using Entry = std::pair<Value, Value>;
  // False if the key cannot be hashed. Sets or overwrites.
  bool set(const Value& key, Value value, Budget& budget);
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
  const std::vector<Entry>& entries() const { return entries_; }
  int depth() const { return depth_; }

 private:
  std::vector<Entry> entries_;
  std::unordered_map<std::string, uint32_t> index_;  // a type letter and the key's text -> entry
  int depth_ = 1;
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;
};

// Arguments of a call, filter or test. At most kArgsMax of each, so that linear search stays cheap.
struct Args {
  static constexpr size_t kArgsMax = 255;  // Python's own old bound
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The argument at `index` or called `name`; null if absent.
  const Value* find(size_t index, std::string_view name) const;
};

// The `loop` variable of a running for loop.
struct Loop {
  List items;
  size_t index = 0;  // of the running iteration
  int depth = 0;  // of recursive loops, from 0
  int value_depth = 1;  // see Value::depth()
  std::optional<Value> last_changed;  // argument of the last loop.changed(), a scalar
  std::function<Result<Value>(const Args&)> recurse;  // loop(items); empty unless the loop is recursive
};

// Python's ==, and <; the latter fails for values without an order.
bool equals(const Value& a, const Value& b, Budget& budget);
Result<bool> less(const Value& a, const Value& b, Budget& budget);

// Python's str() and repr(), appended.
void append_str(std::string& out, const Value& value, Budget& budget);
void append_repr(std::string& out, const Value& value, Budget& budget);
std::string to_str(const Value& value, Budget& budget);

// What a for loop sees: items of a list, keys of a dict, characters of a string, nothing of undefined.
Result<List> iterate(const Value& value, Budget& budget);

inline std::unexpected<Error> type_error(std::string message) {
  return fail(ErrorCode::kInvalidArgument, std::move(message), "messages");
}

}  // namespace runahead::jinja
