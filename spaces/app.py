"""The page of ``train demo`` as a Hugging Face Space."""

from clearfuse.train.demo.serve import build_page, launch

demo = build_page()

if __name__ == "__main__":
    launch(demo, "0.0.0.0", 7860, share=False)
