// SPDX-License-Identifier: Apache-2.0
package io.tidemark.cli;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;
import tools.jackson.databind.json.JsonMapper;

class ImageJsonTest {
  @Test
  void isLaidOutAsQemuImgDoes() {
    ImageJson.Members image = new ImageJson.Members().put("size", 5).put("dirty", false);
    image.putArray("flags");
    ImageJson.Elements list = image.putArray("bitmaps");
    list.addObject().put("name", "b0");
    list.add("word");
    assertThat(ImageJson.text(image))
        .isEqualTo(
            """
            {
                "size": 5,
                "dirty": false,
                "flags": [
                ],
                "bitmaps": [
                    {
                        "name": "b0"
                    },
                    "word"
                ]
            }\
            """);
  }

  @Test
  void anyTextComesBack() {
    String text = "q\"\\\t\b\f\n\r é\u0001\u007f\uD83D\uDE00/'";
    String json = ImageJson.text(new ImageJson.Members().put("text", text));
    assertThat(json).contains("\\u00E9", "\\u007F");
    assertThat(JsonMapper.shared().readTree(json).get("text").asString()).isEqualTo(text);
  }
}
