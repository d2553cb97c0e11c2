def campaign(folder, moments):
    return 0
