#include "services/cluster/local_cluster.h"

#include <gtest/gtest.h>

namespace runahead {
namespace {

TEST(SharedCores, AreWarnedOfOnlyIfThreadsExceedCpus) {
  EXPECT_EQ(shared_cores_warning(2, 1, 1, 2), "");
  EXPECT_EQ(shared_cores_warning(2, 4, 8, 8), "");
  EXPECT_NE(shared_cores_warning(5, 1, 1, 2).find("5 prefill workers of 1 thread compute on 2 CPUs"),
            std::string::npos);
  EXPECT_NE(shared_cores_warning(1, 8, 1, 1).find("1 prefill workers of 8 threads compute on 1 CPU:"),
            std::string::npos);
  EXPECT_NE(shared_cores_warning(1, 1, 8, 2).find("8 threads decode on 2 CPUs"), std::string::npos);
}

}  // namespace
}  // namespace runahead
