// AtEnd: calls when the scope ends, however it does.
#pragma once

#include <utility>

namespace runahead {

template <class Call>
class AtEnd {
 public:
  explicit AtEnd(Call call) : call_(std::move(call)) {}
  ~AtEnd() { call_(); }
  AtEnd(const AtEnd&) = delete;
  AtEnd& operator=(const AtEnd&) = delete;

 private:
  Call call_;
};

}  // namespace runahead
