"""The page's words in English and Chinese."""

from __future__ import annotations

from clearfuse.train.demo.state import Language

WORDS: dict[str, tuple[str, str]] = {
    "intro": (
        "Fuse two pictures of one scene into one, and undo what the weather and the camera did to them.",
        "把同一场景的两幅图像融合为一幅，并消除天气与相机造成的退化。",
    ),
    "scene_tab": ("Built-in scene", "内置场景"),
    "own_tab": ("Your own pictures", "我的图像"),
    "task": ("What the two pictures are", "图像对类型"),
    "auto": ("Guess from the pictures", "自动判断"),
    "vif": ("Visible + infrared", "可见光 + 红外"),
    "mef": ("Dark + bright exposure", "欠曝 + 过曝"),
    "mff": ("Near + far focus", "近焦 + 远焦"),
    "scene": ("Scene", "场景编号"),
    "files": ("Drop two pictures of the same size", "拖入两幅同样大小的图像"),
    "degradations": ("Degradations to add", "添加退化"),
    "degradations_info": ("Several at once; each gets a slider for how strong it is.", "可多选；每种都有强度滑块。"),
    "severity": ("strength, 0 to 1", "强度（0 至 1）"),
    "prompt": ("Instruction", "指令"),
    "prompt_hint": (
        "Empty: what is wrong is estimated and removed; fuse: just fuse the two",
        "留空：自动估计并消除退化；填 fuse：仅融合",
    ),
    "strength": ("How much of it is removed", "消除程度"),
    "strength_info": (
        "1: all; 0.5: half of the noise, half of the haze; of models with a dial",
        "1 为全部；0.5 为一半；需模型支持",
    ),
    "pick": ("… or pick one", "……或从中选择"),
    "model": ("Fuse with", "融合方法"),
    "fuse": ("Fuse", "融合"),
    "slider": ("Before | after: drag the line", "融合前 | 融合后：拖动分界线"),
    "a_vif": ("Input: visible", "输入：可见光"),
    "b_vif": ("Input: infrared", "输入：红外"),
    "a_mef": ("Input: dark exposure", "输入：欠曝"),
    "b_mef": ("Input: bright exposure", "输入：过曝"),
    "a_mff": ("Input: near focus", "输入：近焦"),
    "b_mff": ("Input: far focus", "输入：远焦"),
    "fused": ("Fused", "融合结果"),
    "difference_truth": ("Difference to the ideal", "与理想结果之差"),
    "difference_a": ("Difference to the first input", "与第一幅输入之差"),
    "link": ("Link to this state", "此状态的链接"),
    "link_info": (
        "Opens the page as it is now; your own pictures are not in it.",
        "打开即恢复当前设置；不含您上传的图像。",
    ),
    "gallery": ("Examples: choose one", "示例：点击试用"),
    "scores": ("Scores", "评分"),
    "method": ("Method", "方法"),
    "scores_truth": (
        "PSNR and SSIM compare with the ideal: the clean pair, fused. The others compare with the clean inputs. "
        "Higher is better.",
        "PSNR 与 SSIM 以干净图像对的融合结果为基准，其余指标与干净输入比较。数值越高越好。",
    ),
    "scores_pair": (
        "No clean version of your pictures is known, so the scores say how much of the inputs is kept. "
        "Higher is better.",
        "没有您图像的干净版本，因此评分只反映输入信息的保留程度。数值越高越好。",
    ),
    "known": ("What was done to the pictures", "图像的退化情况"),
    "clean_scene": ("Nothing: the scene is clean.", "无：该场景是干净的。"),
    "unknown": ("Nothing was added here; what they came with is not known.", "此处未添加退化；原有退化未知。"),
    "degradation": ("Degradation", "退化"),
    "where": ("In", "位置"),
    "parameters": ("In physical units", "物理参数"),
    "on_a": ("first picture", "第一幅"),
    "on_b": ("second picture", "第二幅"),
    "on_both": ("both pictures", "两幅"),
    "left_out": ("cannot act on these pictures and was left out", "不适用于这些图像，已忽略"),
    "time": ("Fused {size} in {seconds} s with {model}", "用 {model} 融合 {size}，耗时 {seconds} 秒"),
    "guessed": ("taken as {task}, because {why}", "判断为{task}（{why}）"),
    "swapped": ("the second picture is taken first", "第二幅排在前面"),
    "estimated": ("estimated: {found}; asked: {prompt}", "估计：{found}；指令：{prompt}"),
    "found": (
        "{degradation} in the {where}, {strength}, {sure} % sure",
        "{where}有{degradation}（{strength}，把握 {sure} %）",
    ),
    "nothing_found": ("nothing found to remove", "未发现需要消除的退化"),
    "not_looked": ("nothing is estimated: {why}", "未作估计：{why}"),
    "no_prompt": ("{model} does not read instructions", "{model} 不读取指令"),
}
"""(English, Chinese) by key."""

OPERATOR_WORDS: dict[str, str] = {
    "misregistration": "错位",
    "ghosting": "鬼影",
    "haze": "雾霾",
    "rain": "雨",
    "snow": "雪",
    "defocus_blur": "离焦模糊",
    "motion_blur": "运动模糊",
    "lens_rain": "镜头水滴",
    "gaussian_blur": "高斯模糊",
    "low_exposure": "曝光不足",
    "high_exposure": "曝光过度",
    "sensor_noise": "传感器噪声",
    "ir_stripes": "红外条纹",
    "ir_dead_pixels": "红外坏点",
    "low_contrast": "低对比度",
    "high_contrast": "高对比度",
    "ir_low_contrast": "红外低对比度",
    "gaussian_noise": "高斯噪声",
    "downsample": "低分辨率",
    "jpeg": "JPEG 压缩",
}
"""Chinese names of the degradations."""


def say(key: str, language: Language) -> str:
    """A text of the page."""
    return WORDS[key][language == "zh"]


def operator_word(name: str, language: Language) -> str:
    """A degradation's name for a reader."""
    if language == "zh" and name in OPERATOR_WORDS:
        return OPERATOR_WORDS[name]
    return {"jpeg": "JPEG compression", "downsample": "low resolution"}.get(name, name.replace("_", " "))
