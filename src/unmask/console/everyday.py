"""What the short help of each command shows: what it does, examples, and the flags of every day."""

from typing import NamedTuple


class Page(NamedTuple):
    """The short help of a command."""

    about: str
    examples: tuple[str, ...]
    flags: tuple[str, ...]
    """Flags and aliases without dashes, the most used first; their texts are in the table of flags."""


EVERYDAY = {
    "demo": Page(
        "Pretrain on scikit-learn's handwritten digits, and show what that gains when few labels are known. "
        "Takes under two minutes on a laptop.",
        (
            "unmask demo",
            "unmask demo --out my-demo",
            "unmask demo --epochs 20           # shorter",
            "unmask demo --seeds 10            # narrower intervals",
        ),
        ("out", "epochs", "seeds", "threads"),
    ),
    "pretrain": Page(
        "Learn from images without labels: hide parts of each image, and train an encoder to predict them. "
        "The recipe is chosen from your images; flags change single settings of it.",
        (
            "unmask pretrain photos",
            "unmask pretrain photos --minutes 30",
            "unmask pretrain photos --recipe mae-s16 --epochs 100 --lr 1e-4",
            "unmask pretrain --resume runs/mae-ti16-photos",
        ),
        (
            "recipe",
            "epochs",
            "minutes",
            "batch-size",
            "image-size",
            "lr",
            "mask-ratio",
            "masking",
            "model",
            "patch-size",
            "init",
            "resume",
            "out",
            "seed",
            "device",
            "workers",
        ),
    ),
    "reconstruct": Page(
        "Hide parts of images, let a pretrained model rebuild them, and draw a sheet of the images as they were, masked and "
        "rebuilt. Prints the error beside that of interpolation.",
        (
            "unmask reconstruct runs/NAME photos",
            "unmask reconstruct runs/NAME a.jpg b.jpg --out sheet.png",
            "unmask reconstruct runs/NAME photos --masking block --ratio 0.4",
            "unmask reconstruct runs/NAME a.jpg --mask painted.png",
        ),
        ("out", "masking", "ratio", "mask", "seed", "device", "threads", "json"),
    ),
    "finetune": Page(
        "Train an encoder, or a new one, on labelled images, and score it: class folders give a classifier, "
        "class maps segmentation, COCO, YOLO or VOC detection.",
        (
            "unmask finetune runs/NAME animals",
            "unmask finetune runs/NAME animals --labels 1%,10%,all",
            "unmask finetune scratch animals",
            "unmask finetune runs/NAME street    # pictures with class maps or boxes",
        ),
        (
            "recipe",
            "labels",
            "epochs",
            "batch-size",
            "image-size",
            "lr",
            "labels-file",
            "task",
            "resume",
            "out",
            "seed",
            "device",
            "workers",
        ),
    ),
    "predict": Page(
        "Classify images, or find objects or class maps in them, using a fine-tuned run. If the truth is known, "
        "the predictions are scored too.",
        (
            "unmask predict runs/NAME photo.jpg",
            "unmask predict runs/NAME photos --out predictions.csv",
            "unmask predict runs/NAME map.png --tiles      # objects in a large picture",
            "unmask predict runs/NAME photos --json",
        ),
        ("top", "out", "tiles", "labels-file", "data-kind", "device", "threads", "json"),
    ),
    "evaluate": Page(
        "Measure how good an encoder is on labelled images, beside random weights and raw pixels. "
        "Nothing is masked.",
        (
            "unmask evaluate runs/NAME animals",
            "unmask evaluate runs/NAME animals --protocol linear",
            "unmask evaluate runs/NAME animals --encoders other.pth",
            "unmask evaluate places --queries photos.csv    # of a map, see `unmask locate`",
        ),
        (
            "protocol",
            "labels",
            "seeds",
            "control",
            "encoders",
            "epochs",
            "labels-file",
            "out",
            "device",
            "threads",
            "json",
        ),
    ),
    "tokenizer": Page(
        "Learn discrete codes of image patches. `unmask pretrain` can predict such codes instead of pixels.",
        (
            "unmask tokenizer photos",
            "unmask tokenizer photos --epochs 20 --out my-tokenizer",
            "unmask tokenizer --resume my-tokenizer",
            "unmask pretrain photos objective.target:tokenizer \\\n    --objective.target.path my-tokenizer",
        ),
        (
            "recipe",
            "epochs",
            "batch-size",
            "image-size",
            "patch-size",
            "lr",
            "resume",
            "out",
            "seed",
            "device",
            "workers",
        ),
    ),
    "embed": Page(
        "Make a vector of each picture, in a folder of Parquet files that `unmask search` and pandas read. The same command "
        "continues a folder, and adds new pictures.",
        (
            "unmask embed runs/NAME photos --out vectors",
            "unmask embed runs/NAME shards --out vectors --dtype float16",
            "unmask embed vit.safetensors photos --out vectors --pooling class",
            "unmask embed runs/NAME photos --out vectors --labels-file labels.csv",
        ),
        (
            "out",
            "pooling",
            "whitened",
            "dtype",
            "batch-size",
            "labels-file",
            "data-kind",
            "workers",
            "device",
            "threads",
        ),
    ),
    "search": Page(
        "Find the pictures of a folder of vectors that are most like others, with a sheet of them. The search is exact "
        "unless --index is given.",
        (
            "unmask search vectors photo.jpg",
            "unmask search vectors a.jpg b.jpg --k 20 --out neighbours.png",
            "unmask search vectors photo.jpg --where label=wheat --where split=train",
            "unmask search vectors photo.jpg --json",
        ),
        ("k", "where", "queries", "index", "encoder", "data", "out", "device", "threads", "json"),
    ),
    "locate": Page(
        "Find where on a map pictures from straight above were taken. The map is embedded first; answers come with a margin "
        'that is calibrated on the map, or with "no fix". GPS in pictures is read with --prior-from-exif alone.',
        (
            "unmask embed runs/NAME map.tif --out places --tile-metres 60",
            "unmask locate places drone.jpg --ground-size 165",
            "unmask locate places *.jpg --height 120 --fov 70 --heading 152 --sequence 60",
            "unmask locate places drone.jpg --near 24.262,120.720,300 --json",
        ),
        (
            "ground-size",
            "height",
            "fov",
            "heading",
            "turns",
            "near",
            "prior-from-exif",
            "sequence",
            "k",
            "geojson",
            "encoder",
            "out",
            "device",
            "threads",
            "json",
        ),
    ),
    "duplicates": Page(
        "Find near-duplicates among the pictures of a folder of vectors, and pictures of the test split that also stand in "
        "training.",
        (
            "unmask duplicates vectors",
            "unmask duplicates vectors --across-splits",
            "unmask duplicates vectors --threshold 0.95 --out pairs.csv",
            "unmask duplicates vectors --json",
        ),
        ("across-splits", "threshold", "out", "data", "threads", "json"),
    ),
    "report": Page(
        "Write the report of a run as one page, or compare several runs side by side. Training writes it too, unless "
        "--no-report is given.",
        (
            "unmask report runs/NAME",
            "unmask report runs/A runs/B --out both.html",
            "unmask report runs/NAME --send tensorboard",
            "unmask report runs/NAME --send mlflow,trackio",
        ),
        ("out", "send"),
    ),
    "odd": Page(
        "Find what is odd: compare the patches of images with those of normal images. Scores each image, draws where it differs, and "
        "takes its threshold from normal images alone.",
        (
            "unmask odd runs/NAME normal test",
            "unmask odd runs/NAME normal test --image-size 448",
            "unmask odd runs/NAME boards.json --aligned 1    # train and test",
            "unmask odd runs/NAME/odd-test new               # the same memory",
        ),
        (
            "image-size",
            "alarms",
            "aligned",
            "good",
            "maps",
            "out",
            "data-kind",
            "seed",
            "device",
            "threads",
            "json",
        ),
    ),
    "doctor": Page(
        "Look for what is wrong with a run, or with images before a run: what is seen, why it matters, what to change.",
        (
            "unmask doctor runs/NAME",
            "unmask doctor photos",
            "unmask doctor photos --recipe mae-s16",
            "unmask doctor runs/NAME --json",
        ),
        ("recipe", "data-kind", "threads", "json"),
    ),
    "words": Page(
        "The same idea on text: predict hidden characters as BERT, or the next one as GPT, with the image encoder's blocks.",
        (
            "unmask words",
            "unmask words book.txt",
            "unmask words book.txt --objective hidden",
            "unmask words --steps 300          # shorter",
        ),
        ("objective", "ratio", "steps", "embed-dim", "depth", "seed", "threads"),
    ),
    "bench": Page(
        "Measure how fast this machine trains a recipe, find the bottleneck, and suggest what to change.",
        (
            "unmask bench",
            "unmask bench --recipe mae-s16",
            "unmask bench --data photos        # the loader too",
            "unmask bench --recipe mae-s16 --model vit-b16 --mask-ratio 0.6",
        ),
        (
            "recipe",
            "data",
            "batch-size",
            "image-size",
            "mask-ratio",
            "masking",
            "model",
            "patch-size",
            "micro-batch",
            "precision",
            "decode",
            "device",
            "workers",
            "threads",
            "json",
        ),
    ),
    "study": Page(
        "Repeat one of the paper's ablations on your images, and print the paper's table next to yours.",
        (
            "unmask study --list",
            "unmask study mask-ratio animals",
            "unmask study mask-ratio animals --budget 2h",
            "unmask study decoder-depth animals --seeds 1",
        ),
        (
            "list",
            "scale",
            "seeds",
            "budget",
            "only",
            "image-size",
            "labels-file",
            "out",
            "device",
            "workers",
        ),
    ),
    "compare": Page(
        "Pretrain the same encoder by several methods on your images, and evaluate all of them in the same way.",
        (
            "unmask compare animals --encoders ti16",
            "unmask compare animals --methods mae,dino,scratch --budget 4h",
            "unmask compare animals --equal compute --epochs 20",
            "unmask compare digits --methods mae,scratch --seeds 1",
        ),
        (
            "methods",
            "encoders",
            "equal",
            "epochs",
            "labels",
            "budget",
            "seeds",
            "images",
            "image-size",
            "out",
            "device",
            "workers",
        ),
    ),
    "pack": Page(
        "Pack images into tar shards that are fast to read in random order, for slow disks and large sets. "
        "Larger images are made smaller.",
        (
            "unmask pack photos shards",
            "unmask pack photos shards --short-side 320",
            "unmask pack scenes shards --channels 4,3,2",
            "unmask pretrain shards",
        ),
        ("short-side", "quality", "shard-mib", "workers", "max-set-aside", "channels", "data-kind"),
    ),
    "convert": Page(
        "Convert weights to and from published MAE, timm and transformers, or to ONNX, and prove that they still compute "
        "the same.",
        (
            "unmask convert runs/NAME weights --to timm",
            "unmask convert runs/NAME weights --to huggingface",
            "unmask convert mae_pretrain_vit_base.pth weights --to unmask --push USER/NAME",
            "unmask convert runs/NAME files --to onnx --dtype float16",
        ),
        (
            "to",
            "pool",
            "heads",
            "decoder-heads",
            "dtype",
            "license",
            "images",
            "page",
            "push",
            "threads",
        ),
    ),
    "page": Page(
        "Write a web page that runs models in the browser: a mask studio, in which one paints what is hidden and sees it rebuilt; "
        "classes of a fine-tuned classifier, class maps of a segmentation; neighbours in a folder of vectors; odd places.",
        (
            "unmask page runs/NAME --out page --serve",
            "unmask page runs/A runs/B --out page --images photos",
            "unmask page runs/NAME runs/TUNED vectors runs/NAME/odd-test",
            "unmask page runs/NAME --out page --samples 0 --dtype float16",
        ),
        ("out", "images", "samples", "encoder", "dtype", "runtime", "serve", "port", "threads"),
    ),
    "completion": Page(
        "Complete commands, flags, kinds and recipes of unmask with Tab, in bash, zsh and fish.",
        (
            "unmask completion --install",
            "unmask completion --install --shell zsh",
            "unmask completion                 # print the script",
            "unmask completion --shell fish > unmask.fish",
        ),
        ("install", "shell"),
    ),
}
