"""Two networks for the fourteen findings of NIH's ChestX-ray14, off the Hub.

`nih14-resnet50`: torchxrayvision's ResNet-50 (Cohen et al. 2022), of whose eighteen outputs the
fourteen of NIH are kept. Its picture goes from -1024 to 1024, and its probabilities are given so
that its operating point of each finding is 0.5. `nih14-densenet121`: CheXVision's DenseNet-121.
"""

from xai_demo.records import Model, Raster

FINDINGS = (  # in NIH's usual order
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)

RESNET50 = Model(
    name="nih14-resnet50",
    title="ResNet-50 (14 findings, five data sets)",
    task="chest_xray",
    architecture="resnet50",
    labels=FINDINGS,
    preprocessing=Raster(height=512, width=512, mean=0.5, std=1 / 2048, crop="centre"),
    activation="sigmoid",
    # torchxrayvision 1.x, `model_urls["resnet50-res512-all"]["op_threshs"]`
    rescaled_at={
        "Atelectasis": 0.51570356,
        "Consolidation": 0.50444704,
        "Infiltration": 0.53787947,
        "Pneumothorax": 0.50723547,
        "Edema": 0.5025118,
        "Emphysema": 0.5035252,
        "Fibrosis": 0.5038076,
        "Effusion": 0.51862943,
        "Pneumonia": 0.5078151,
        "Pleural_Thickening": 0.50724894,
        "Cardiomegaly": 0.5056339,
        "Nodule": 0.510706,
        "Mass": 0.5053923,
        "Hernia": 0.5020846,
    },
    operating_points=dict.fromkeys(FINDINGS, 0.5),
    licence="Apache-2.0",
    data=(
        "PadChest, NIH ChestX-ray14, RSNA, SIIM and VinDr-CXR, adults for the most part; published"
        " mean AUROC on a fifth of NIH 0.811 (without an interval; not measured here)"
    ),
    citation=(
        "Cohen, Viviano, Bertin, Morrison, Torabian, Guarrera, Lungren, Chaudhari, Brooks,"
        " Hashir, Bertrand (2022): TorchXRayVision: A library of chest X-ray datasets and models."
        " MIDL 2022. arXiv:2111.00595"
    ),
)

DENSENET121 = Model(
    name="nih14-densenet121",
    title="DenseNet-121 (14 findings, NIH)",
    task="chest_xray",
    architecture="densenet121-chexvision",
    labels=FINDINGS,
    preprocessing=Raster(height=320, width=320, mean=0.0, std=1.0, contrast_limit=2.0),
    activation="sigmoid",
    operating_points=dict.fromkeys(FINDINGS, 0.5),
    licence="MIT",
    data=(
        "NIH ChestX-ray14: 112,120 frontal films of 30,805 patients of one hospital; published"
        " macro AUROC on its validation part 0.846 (without an interval; not measured here)"
    ),
    citation=(
        "arudaev/chexvision: CheXVision, large-scale chest X-ray pathology detection."
        " Data: Wang et al. (2017): ChestX-ray8. CVPR 2017, 2097-2106"
    ),
)
