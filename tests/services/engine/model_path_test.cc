// What people name in place of a model file: each is called by what it is, with what to do.
#include "services/engine/model_path.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/temp_dir.h"

namespace runahead {
namespace {

using ::testing::HasSubstr;

class ModelPathTest : public ::testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& content = "x") {
    const std::filesystem::path path = dir_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << content;
    return path.string();
  }
  static void expect(const std::string& model, ErrorCode code, const std::string& says) {
    const auto found = find_model(model);
    ASSERT_FALSE(found) << model;
    EXPECT_EQ(found.error().code, code) << found.error().message;
    EXPECT_THAT(found.error().message, HasSubstr(says));
    EXPECT_EQ(found.error().param, "model");
  }
  test::TempDir dir_;
};

TEST_F(ModelPathTest, AFolderNamesTheFileInIt) {
  write("none/readme.txt");
  const std::string one = write("one/m.gguf");
  write("two/b.gguf");
  const std::string first = write("two/a.gguf");
  write("hf/model-00001-of-00002.safetensors");
  const auto folder = [&](const char* name) { return (dir_ / name).string(); };
  expect(folder("none"), ErrorCode::kInvalidModel, "a folder without a model");
  expect(folder("one"), ErrorCode::kInvalidModel, "give the file in it: " + one);
  expect(folder("two"), ErrorCode::kInvalidModel, "give one of its 2 files, such as " + first);
  expect(folder("hf"), ErrorCode::kInvalidModel, "without the config.json");
  write("hf/config.json", "{}");
  EXPECT_EQ(find_model(folder("hf")).value(), dir_ / "hf");
  write("hf/model.gguf");
  expect(folder("hf"), ErrorCode::kInvalidModel, "give the file in it");
  write("pt/config.json"), write("pt/pytorch_model.bin");
  expect(folder("pt"), ErrorCode::kInvalidModel, "PyTorch's pickled weights");
}

TEST_F(ModelPathTest, UnfinishedDownloadsAreCalledSo) {
  for (const char* ending : {".part", ".incomplete", ".crdownload", ".download", ".partial"}) {
    const std::string begun = write(std::string("m.gguf") + ending);
    expect(begun, ErrorCode::kInvalidModel, "an unfinished download");
    expect((dir_ / "m.gguf").string(), ErrorCode::kNotFound, "there is only " + begun);
    std::filesystem::remove(begun);
  }
  expect(write("empty.gguf", ""), ErrorCode::kInvalidModel, "is empty (0 bytes)");
}

TEST_F(ModelPathTest, WhatIsNoPathIsRecognised) {
  expect("https://example.org/m.gguf", ErrorCode::kNotFound, "an address; download the file");
  expect("meta-llama/Llama-3.2-1B-Instruct", ErrorCode::kNotFound, "a repository of Hugging Face");
  expect("~/m.gguf", ErrorCode::kNotFound, "write $HOME instead");
  expect("no-such-folder/m.gguf", ErrorCode::kNotFound, "there is no model file no-such-folder/m.gguf; give the path");
  expect("", ErrorCode::kNotFound, "there is no model file");
  const std::filesystem::path link = dir_ / "link.gguf";
  std::filesystem::create_symlink("../blobs/gone", link);
  expect(link.string(), ErrorCode::kNotFound, "a link to ../blobs/gone, which is not there");
}

TEST_F(ModelPathTest, NamesForPeople) {
  std::filesystem::create_directories(dir_ / "Qwen3-0.6B");
  EXPECT_EQ(model_name_of(dir_ / "Qwen3-0.6B"), "Qwen3-0.6B");
  EXPECT_EQ(model_name_of((dir_ / "Qwen3-0.6B").string() + "/"), "Qwen3-0.6B");
  EXPECT_EQ(model_name_of("/models/Qwen3-0.6B.Q4_0.gguf"), "Qwen3-0.6B.Q4_0");
  EXPECT_EQ(model_name_of("smollm2"), "smollm2");
}

TEST_F(ModelPathTest, AModelFileIsFound) {
  EXPECT_EQ(find_model(write("m.gguf")).value(), dir_ / "m.gguf");
  EXPECT_EQ(find_model(write("ggml-model")).value(), dir_ / "ggml-model") << "whatever its name";
}

TEST_F(ModelPathTest, OverridesAreCheckedBeforeTheFile) {
  const auto file = open_model({(dir_ / "none.gguf").string(), {"a"}});
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace runahead
