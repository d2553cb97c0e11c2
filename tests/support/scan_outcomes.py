"""What becomes of every file that pydicom and nibabel ship, and the texts in them that may come out nowhere."""

from __future__ import annotations

import re
import warnings

import pydicom

DICOM_OUTCOMES = {
    "charset_files/chrArab.dcm": "1x32x32 int32, 0 to 255",
    "charset_files/chrFren.dcm": "1x32x32 int32, 0 to 255",
    "charset_files/chrFrenMulti.dcm": "1x32x32 int32, 0 to 255",
    "charset_files/chrGerm.dcm": "1x32x32 int32, 0 to 255",
    "charset_files/chrGreek.dcm": "1x32x32 int32, 0 to 255",
    "charset_files/chrH31.dcm": "1x32x32 int32, 0 to 255",
    "charset_files/chrH32.dcm": "1x32x32 int32, 0 to 255",
    "charset_files/chrHbrw.dcm": "1x32x32 int32, 0 to 255",
    "charset_files/chrI2.dcm": "1x32x32 int32, 0 to 255",
    "charset_files/chrJapMulti.dcm": "a is damaged: it holds no pixels",
    "charset_files/chrJapMultiExplicitIR6.dcm": "a is damaged: it holds no pixels",
    "charset_files/chrKoreanMulti.dcm": "a is damaged: it holds no pixels",
    "charset_files/chrRuss.dcm": "1x32x32 int32, 0 to 255",
    "charset_files/chrSQEncoding.dcm": "a is damaged: it holds no pixels",
    "charset_files/chrSQEncoding1.dcm": "a is damaged: it holds no pixels",
    "charset_files/chrX1.dcm": "1x32x32 int32, 0 to 255",
    "charset_files/chrX2.dcm": "1x32x32 int32, 0 to 255",
    "palettes/fall.dcm": "holds no image (Color Palette Storage)",
    "palettes/hotiron.dcm": "holds no image (Color Palette Storage)",
    "palettes/hotmetalblue.dcm": "holds no image (Color Palette Storage)",
    "palettes/pet.dcm": "holds no image (Color Palette Storage)",
    "palettes/pet20step.dcm": "holds no image (Color Palette Storage)",
    "palettes/spring.dcm": "holds no image (Color Palette Storage)",
    "palettes/summer.dcm": "holds no image (Color Palette Storage)",
    "palettes/winter.dcm": "holds no image (Color Palette Storage)",
    "test_files/693_J2KI.dcm": "1x512x512 int32, -3995 to 1812 HU",
    "test_files/CT_small.dcm": "1x128x128 int32, -896 to 1167 HU",
    "test_files/ExplVR_BigEnd.dcm": "1x60x80x3 uint8, 0 to 255",
    "test_files/ExplVR_BigEndNoMeta.dcm": "a is no DICOM file",
    "test_files/ExplVR_LitEndNoMeta.dcm": "a is no DICOM file",
    "test_files/GDCMJ2K_TextGBR.dcm": "cannot be decoded by what is installed here",
    "test_files/J2K_pixelrep_mismatch.dcm": "1x512x512 int32, -2000 to 1896 HU",
    "test_files/JPEG-lossy.dcm": "cannot be decoded by what is installed here",
    "test_files/JPEG2000-embedded-sequence-delimiter.dcm": "cannot be decoded by what is installed here",
    "test_files/JPEG2000.dcm": "1x1024x256 int32, -30 to 245",
    "test_files/JPEGLSNearLossless_08.dcm": "which nothing installed here decodes",
    "test_files/JPEGLSNearLossless_16.dcm": "which nothing installed here decodes",
    "test_files/JPGExtended.dcm": "cannot be decoded by what is installed here",
    "test_files/MR_small.dcm": "1x64x64 int32, 127 to 2145",
    "test_files/MR_small_RLE.dcm": "1x64x64 int32, 127 to 2145",
    "test_files/MR_small_bigendian.dcm": "1x64x64 int32, 127 to 2145",
    "test_files/MR_small_expb.dcm": "1x64x64 int32, 127 to 2145",
    "test_files/MR_small_implicit.dcm": "1x64x64 int32, 127 to 2145",
    "test_files/MR_small_jp2klossless.dcm": "1x64x64 int32, 127 to 2145",
    "test_files/MR_small_jpeg_ls_lossless.dcm": "which nothing installed here decodes",
    "test_files/MR_small_padded.dcm": "1x64x64 int32, 127 to 2145",
    "test_files/MR_truncated.dcm": "a is damaged: its pixels are cut off",
    "test_files/SC_jpeg_no_color_transform.dcm": "1x256x256x3 uint8, 134 to 252",
    "test_files/SC_jpeg_no_color_transform_2.dcm": "1x256x256x3 uint8, 165 to 255",
    "test_files/SC_rgb_dcmtk_+eb+cr.dcm": "1x100x100x3 uint8, 0 to 255",
    "test_files/SC_rgb_dcmtk_+eb+cy+n1.dcm": "1x100x100x3 uint8, 0 to 255",
    "test_files/SC_rgb_dcmtk_+eb+cy+n2.dcm": "1x100x100x3 uint8, 0 to 255",
    "test_files/SC_rgb_dcmtk_+eb+cy+np.dcm": "1x100x100x3 uint8, 0 to 255",
    "test_files/SC_rgb_dcmtk_+eb+cy+s2.dcm": "1x100x100x3 uint8, 0 to 255",
    "test_files/SC_rgb_dcmtk_+eb+cy+s4.dcm": "1x100x100x3 uint8, 0 to 255",
    "test_files/SC_rgb_gdcm_KY.dcm": "1x100x100x3 uint8, 0 to 255",
    "test_files/SC_rgb_jls_lossy_line.dcm": "which nothing installed here decodes",
    "test_files/SC_rgb_jls_lossy_sample.dcm": "which nothing installed here decodes",
    "test_files/SC_rgb_jpeg.dcm": "1x256x256x3 uint8, 134 to 252",
    "test_files/SC_rgb_jpeg_app14_dcmd.dcm": "1x256x256x3 uint8, 165 to 255",
    "test_files/SC_rgb_jpeg_dcmd.dcm": "1x256x256x3 uint8, 134 to 252",
    "test_files/SC_rgb_jpeg_dcmtk.dcm": "1x100x100x3 uint8, 0 to 255",
    "test_files/SC_rgb_jpeg_gdcm.dcm": "which nothing installed here decodes",
    "test_files/SC_rgb_jpeg_lossy_gdcm.dcm": "1x100x100x3 uint8, 0 to 255",
    "test_files/SC_rgb_rle.dcm": "1x100x100x3 uint8, 0 to 255",
    "test_files/SC_rgb_rle_16bit.dcm": "1x100x100x3 uint16, 0 to 65535",
    "test_files/SC_rgb_rle_16bit_2frame.dcm": "2x100x100x3 uint16, 0 to 65535",
    "test_files/SC_rgb_rle_2frame.dcm": "2x100x100x3 uint8, 0 to 255",
    "test_files/SC_rgb_rle_32bit.dcm": "a has colours of 32 bits a channel",
    "test_files/SC_rgb_rle_32bit_2frame.dcm": "a has colours of 32 bits a channel",
    "test_files/SC_rgb_small_odd.dcm": "1x3x3x3 uint8, 52 to 176",
    "test_files/SC_rgb_small_odd_big_endian.dcm": "1x3x3x3 uint8, 52 to 176",
    "test_files/SC_rgb_small_odd_jpeg.dcm": "1x3x3x3 uint8, 49 to 179",
    "test_files/SC_ybr_full_422_uncompressed.dcm": "1x100x100x3 uint8, 0 to 255",
    "test_files/UN_sequence.dcm": "a is damaged: it holds no pixels",
    "test_files/badVR.dcm": "a is damaged, or against the standard",
    "test_files/crayons.icc": "a is no DICOM file",
    "test_files/dicomdirtests/77654033/CR1/6154": "1x16x16 int32, 1084.41 to 1637.08",
    "test_files/dicomdirtests/77654033/CR2/6247": "1x16x16 int32, 1723.27 to 2179.5",
    "test_files/dicomdirtests/77654033/CR3/6278": "1x16x16 int32, 1061.16 to 1578.94",
    "test_files/dicomdirtests/77654033/CT2/17106": "1x16x16 int32, -981 to 77 HU",
    "test_files/dicomdirtests/77654033/CT2/17136": "1x16x16 int32, 77 to 1360 HU",
    "test_files/dicomdirtests/77654033/CT2/17166": "1x16x16 int32, 991 to 1489 HU",
    "test_files/dicomdirtests/77654033/CT2/17196": "1x16x16 int32, 498 to 1399 HU",
    "test_files/dicomdirtests/98892001/CT2N/6293": "1x16x16 int32, 218 to 292 HU",
    "test_files/dicomdirtests/98892001/CT2N/6924": "1x16x16 int32, 65 to 243 HU",
    "test_files/dicomdirtests/98892001/CT5N/2062": "1x16x16 int32, -888 to 44 HU",
    "test_files/dicomdirtests/98892001/CT5N/2392": "1x16x16 int32, -859 to 85 HU",
    "test_files/dicomdirtests/98892001/CT5N/2693": "1x16x16 int32, -666 to 75 HU",
    "test_files/dicomdirtests/98892001/CT5N/3023": "1x16x16 int32, -151 to 50 HU",
    "test_files/dicomdirtests/98892001/CT5N/3353": "1x16x16 int32, -156 to 44 HU",
    "test_files/dicomdirtests/98892003/MR1/15820": "1x16x16 int32, 224 to 840",
    "test_files/dicomdirtests/98892003/MR1/4919": "1x16x16 int32, 442 to 826",
    "test_files/dicomdirtests/98892003/MR1/5641": "1x16x16 int32, 280 to 800",
    "test_files/dicomdirtests/98892003/MR2/15970": "1x16x16 int32, 79 to 358",
    "test_files/dicomdirtests/98892003/MR2/4950": "1x16x16 int32, 405 to 742",
    "test_files/dicomdirtests/98892003/MR2/4981": "1x16x16 int32, 509 to 755",
    "test_files/dicomdirtests/98892003/MR2/5011": "1x16x16 int32, 403 to 846",
    "test_files/dicomdirtests/98892003/MR2/6273": "1x16x16 int32, 427 to 692",
    "test_files/dicomdirtests/98892003/MR2/6605": "1x16x16 int32, 414 to 685",
    "test_files/dicomdirtests/98892003/MR2/6935": "1x16x16 int32, 429 to 729",
    "test_files/dicomdirtests/98892003/MR700/4467": "1x16x16 int32, 48 to 80",
    "test_files/dicomdirtests/98892003/MR700/4528": "1x16x16 int32, 47 to 333",
    "test_files/dicomdirtests/98892003/MR700/4558": "1x16x16 int32, 55 to 339",
    "test_files/dicomdirtests/98892003/MR700/4588": "1x16x16 int32, 49 to 104",
    "test_files/dicomdirtests/98892003/MR700/4618": "1x16x16 int32, 19 to 81",
    "test_files/dicomdirtests/98892003/MR700/4648": "1x16x16 int32, 0 to 87",
    "test_files/dicomdirtests/98892003/MR700/4678": "1x16x16 int32, 0 to 90",
    "test_files/dicomdirtests/DICOMDIR": "holds no image (Media Storage Directory Storage)",
    "test_files/dicomdirtests/DICOMDIR-bigEnd": "holds no image (Media Storage Directory Storage)",
    "test_files/dicomdirtests/DICOMDIR-empty.dcm": "holds no image (Media Storage Directory Storage)",
    "test_files/dicomdirtests/DICOMDIR-implicit": "holds no image (Media Storage Directory Storage)",
    "test_files/dicomdirtests/DICOMDIR-nooffset": "holds no image (Media Storage Directory Storage)",
    "test_files/dicomdirtests/DICOMDIR-nopatient": "holds no image (Media Storage Directory Storage)",
    "test_files/dicomdirtests/DICOMDIR-reordered": "holds no image (Media Storage Directory Storage)",
    "test_files/empty_charset_LEI.dcm": "a holds no image (an object of no known kind)",
    "test_files/examples_jpeg2k.dcm": "1x480x640x3 uint8, 0 to 255",
    "test_files/examples_overlay.dcm": "1x300x484 int32, 0 to 1123",
    "test_files/examples_palette.dcm": "1x350x800x3 uint8, 0 to 255",
    "test_files/examples_rgb_color.dcm": "1x240x320x3 uint8, 0 to 255",
    "test_files/examples_ybr_color.dcm": "30x240x320x3 uint8, 0 to 220",
    "test_files/image_dfl.dcm": "1x512x512 int32, 0 to 255",
    "test_files/liver_1frame.dcm": "no image but masks",
    "test_files/liver_expb_1frame.dcm": "no image but masks",
    "test_files/meta_missing_tsyntax.dcm": "a does not say how it is encoded",
    "test_files/nested_priv_SQ.dcm": "a is damaged, or against the standard",
    "test_files/no_meta.dcm": "a is no DICOM file",
    "test_files/no_meta_group_length.dcm": "a is damaged: it holds no pixels",
    "test_files/priv_SQ.dcm": "a is damaged: it holds no pixels",
    "test_files/reportsi.dcm": "a holds no image (Basic Text SR Storage)",
    "test_files/reportsi_with_empty_number_tags.dcm": "a holds no image (Basic Text SR Storage)",
    "test_files/rtdose.dcm": "15x10x10 int32, 0.795 to 1.254",
    "test_files/rtdose_1frame.dcm": "1x10x10 int32, 0.795 to 1.254",
    "test_files/rtdose_expb.dcm": "15x10x10 int32, 0.795 to 1.254",
    "test_files/rtdose_expb_1frame.dcm": "1x10x10 int32, 0.795 to 1.254",
    "test_files/rtdose_rle.dcm": "15x10x10 int32, 0.795 to 1.254",
    "test_files/rtdose_rle_1frame.dcm": "1x10x10 int32, 0.795 to 1.254",
    "test_files/rtplan.dcm": "a holds no image (RT Plan Storage)",
    "test_files/rtplan_truncated.dcm": "a holds no image (RT Plan Storage)",
    "test_files/rtstruct.dcm": "a is no DICOM file",
    "test_files/test-SR.dcm": "a holds no image (Comprehensive SR Storage)",
    "test_files/waveform_ecg.dcm": "a holds no image (12-lead ECG Waveform Storage)",
    "test_files/zipMR.gz": "a is no DICOM file",
}
"""What becomes of the files of pydicom that hold an image or anything else, by their path."""
NIFTI_OUTCOMES = {
    "analyze.hdr": "is no NIfTI file",
    "anatomical.nii": "(25, 41, 33) of int32, -610 to 30393",
    "example4d.nii.gz": "holds 2 volumes one after another in time",
    "example_nifti2.nii.gz": "holds 2 volumes one after another in time",
    "functional.nii": "holds 20 volumes one after another in time",
    "nifti1.hdr": "is the header of a pair of files",
    "nifti2.hdr": "is the header of a pair of files",
    "reoriented_anat_moved.nii": "(22, 26, 21) of float32, 0 to 21199.9",
    "resampled_anat_moved.nii": "holds 153 values that are no finite numbers",
    "row_major.dconn.nii": "holds no volume but an array of 6 axes",
    "standard.nii.gz": "(7, 5, 4) of int32, 0 to 255",
}
"""What becomes of every file of NIfTI that nibabel ships."""
TEXTS = {"PN", "LO", "SH", "LT", "ST", "UT", "UC", "DA", "DT", "TM", "AS", "UI", "UR"}
"""Kinds of values that may name somebody, and numbers and dates of somebody."""
STANDARD = "1.2.840.10008."
"""How the identifiers of the standard itself begin."""
OURS = {"FreqGAN", "FREQGAN", "SYNTHETIC"}


def packed() -> list[str]:
    return [name for name, said in DICOM_OUTCOMES.items() if re.match(r"\d", said)]


def packed_grey() -> list[str]:
    return [name for name in packed() if re.match(r"\d+x\d+x\d+ ", DICOM_OUTCOMES[name]) and "dose" not in name]


def secrets(dataset: pydicom.Dataset) -> set[bytes]:
    """All texts of a file that may say whose it is, in all of its sequences, but for constants of the standard."""
    texts = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for element in [*dataset.iterall(), *dataset.file_meta]:
            if element.VR in TEXTS:
                values = element.value if element.VM > 1 else [element.value]
                texts |= {str(value).strip() for value in values}
    texts = {
        text
        for text in texts
        if len(text) > 3 and len(set(text)) > 1 and not text.startswith(STANDARD) and text not in OURS
    }
    parts = {part for text in texts for part in text.replace("=", "^").split("^") if len(part) > 3}
    return {text.encode("utf-8", "replace") for text in texts | parts}
